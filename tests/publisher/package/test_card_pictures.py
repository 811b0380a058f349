"""The top of the model card: a strip of pictures, which is a plain image, and what it takes to get a concept back."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from publisher.api import ReleaseReport
from publisher.package.card import render
from publisher.package.layout import PICTURES
from publisher.package.pictures import GAP, MOST_CONCEPTS, SIGNATURE, TILE, problem, strip
from publisher.package.verify import verify
from support.evaluating import places, resign
from support.packages import report_data

RED, BLUE = (200, 0, 0), (0, 0, 200)


def png(colour: tuple[int, int, int], side: int = 32) -> str:
    """Return an image in one colour as base64."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def pictured(*concepts: str, side: int = 32) -> Callable[[dict[str, Any]], None]:
    """Return what adds concepts that go to a report's data, with two pairs each: red became blue."""

    def change(data: dict[str, Any]) -> None:
        fields = {"base_png": png(RED, side), "hardened_png": png(BLUE, side), "base_label": "", "hardened_label": ""}
        data["concepts"] = [{"id": name, "name": name, "kind": "object"} for name in concepts]
        data["pairs"] = [
            {"concept": name, "check": "cigarette.plain", "prompt": "a", "seed": seed, **fields}
            for name in (*concepts, "pencil")
            for seed in range(2)
        ]
        check = data["claims"][0]["checks"][0]
        check |= {"access": "prompt", "resistance": True}

    return change


def report(*concepts: str, side: int = 32) -> ReleaseReport:
    data = report_data()
    pictured(*concepts, side=side)(data)
    return ReleaseReport.parse(data)


def test_a_strip_has_the_base_models_images_above_the_hardened_ones_for_each_concept_that_goes() -> None:
    found = strip(report("cigarette", "pistol"))
    assert found is not None
    image = Image.open(io.BytesIO(found.png))
    assert image.size == (2 * TILE, 4 * TILE + GAP)
    tops = [TILE // 2, TILE + TILE // 2, 2 * TILE + GAP + TILE // 2, 3 * TILE + GAP + TILE // 2]
    assert [image.getpixel((TILE // 2, top)) for top in tops] == [RED, BLUE, RED, BLUE]
    assert [concept.id for concept in found.concepts] == ["cigarette", "pistol"]
    assert strip(report("cigarette", "pistol")) == found


def test_large_images_are_made_smaller_and_further_concepts_are_counted() -> None:
    found = strip(report(*(f"c{number}" for number in range(50)), side=250))
    assert found is not None
    assert Image.open(io.BytesIO(found.png)).size == (2 * TILE, MOST_CONCEPTS * (2 * TILE + GAP) - GAP)
    assert found.left_out == 50 - MOST_CONCEPTS


def test_without_pictures_of_what_goes_there_is_no_strip() -> None:
    assert strip(report()) is None
    assert PICTURES not in render(report(), base_card=False).decode()


def test_the_card_begins_with_decision_pictures_and_table() -> None:
    record = report("cigarette", "pistol")
    text = render(record, base_card=False, strip=strip(record)).decode()
    parts = ["decision is **passed**", f"]({PICTURES})", "From top to bottom: cigarette, pistol.", "## What it takes"]
    places = [text.index(part) for part in [*parts, "## What was hardened", "## Claims"]]
    assert places == sorted(places)
    assert "| With | cigarette | pistol |" in text
    assert "| Prompt: only words | **passed** 0% (0% to 6%), n 60 | not attacked |" in text
    assert text.count("fine-tuning may bring it back") == 1


def test_a_package_holds_its_strip_signed_and_verifies(make: Callable[..., Path], key_pair: tuple[Path, Path]) -> None:
    folder = make(pictured("cigarette"))
    assert problem((folder / PICTURES).read_bytes()) == ""
    assert PICTURES in (folder / "release/SHA256SUMS").read_text()
    assert verify(folder, key_pair[1]).ok
    (folder / PICTURES).write_bytes(base64.b64decode(png(BLUE)))
    assert not verify(folder, key_pair[1]).ok


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


WHOLE = base64.b64decode(png(RED))
HOSTILE = {
    "no image": b"<script>alert(1)</script>",
    "weights behind the end": WHOLE + b"\x80\x02weights",
    "a second image behind it": WHOLE + WHOLE[len(SIGNATURE) :],
    "text in it": WHOLE[:33] + chunk(b"tEXt", b"Comment\0hello") + WHOLE[33:],
    "a profile in it": WHOLE[:33] + chunk(b"iCCP", b"x\0\0") + WHOLE[33:],
    "cut off": WHOLE[:-4],
    "a bit flipped": WHOLE[:45] + bytes([WHOLE[45] ^ 1]) + WHOLE[46:],
    "no pixels": SIGNATURE,
    "a length beyond the end": SIGNATURE + b"\xff\xff\xff\xffIHDR",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_strip_that_is_no_plain_image_is_refused_even_if_signed(
    make: Callable[..., Path], key_pair: tuple[Path, Path], name: str
) -> None:
    assert problem(HOSTILE[name])
    if name != "weights behind the end":
        return
    folder = make(pictured("cigarette"))
    (folder / PICTURES).write_bytes(HOSTILE[name])
    resign(folder, key_pair[0])
    assert places(verify(folder, key_pair[1]), "V021") == {PICTURES}


def test_no_other_image_may_lie_in_a_package(package: Path, key_pair: tuple[Path, Path]) -> None:
    for name in ("pictures.png", "release/pictures.png", "release/reports/other.png", "unet/pictures.png"):
        (package / name).write_bytes(WHOLE)
    resign(package, key_pair[0])
    assert len(places(verify(package, key_pair[1]), "V021")) == 4
