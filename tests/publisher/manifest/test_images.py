"""Reference images that concepts name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.manifest import Resolved
from support.fake_catalog import SMALL

Problems = Callable[[str | bytes], list[str]]


def with_images(names: str, **entry: str) -> str:
    more = "".join(f", {key}: {value}" for key, value in entry.items())
    return SMALL.replace("concepts: [cigarette]\n", f"concepts: [{{id: cigarette, images: [{names}]{more}}}]\n", 1)


PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"


def test_reference_images_are_written_out_sorted_and_folders_stand_for_what_is_in_them(
    resolved: Callable[[str], Resolved], tmp_path: Path
) -> None:
    (tmp_path / "more").mkdir()
    for name in ("z.png", "more/b.JPG", "more/a.jpeg", "more/notes.txt"):
        (tmp_path / name).write_bytes(PNG if name == "z.png" else JPEG)
    found = resolved(with_images("z.png, ./more, more/a.jpeg", description="a white stick")).scope.concept("cigarette")
    assert found.images == ("more/a.jpeg", "more/b.JPG", "z.png")
    assert found.description == "a white stick"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("no.png", "there is no file 'no.png'."),
        ("notes.txt", "'notes.txt' is no PNG or JPEG file."),
        ("empty", "the folder 'empty' holds no image."),
        ("text.png", "'text.png' is no image: it does not begin as PNG or JPEG files do."),
        ("mixed", "'mixed/b.png' is no image: it does not begin as PNG or JPEG files do."),
        ("/etc/x.png", "a manifest is published with the package, so '/etc/x.png' must not be a path of this machine."),
        ("~/x.png", "a manifest is published with the package, so '~/x.png' must not be a path of this machine."),
        ("'C:\\x.png'", "a manifest is published with the package, so 'C:\\x.png' must not be a path of this machine."),
    ],
)
def test_reference_images_that_cannot_be_read_are_problems_with_their_line(
    problems: Problems, tmp_path: Path, names: str, message: str
) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "text.png").write_text("an image")
    for folder in ("empty", "mixed"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mixed" / "a.png").write_bytes(PNG)
    (tmp_path / "mixed" / "b.png").touch()
    found = problems(with_images(names))
    assert [problem.split(": ", 1)[1] for problem in found] == [message]
    assert found[0].startswith("7:")


def test_images_beside_the_manifests_folder_are_allowed(resolved: Callable[[str], Resolved], tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "x.png").write_bytes(PNG)
    assert resolved(with_images("inner/../x.png")).scope.concept("cigarette").images == ("inner/../x.png",)
