"""The publisher's own part of the card, and the metadata that the hub reads."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from publisher.api import ReleaseReport
from publisher.errors import UsageError
from publisher.package import card
from publisher.package.own_card import OwnCard, read_own_card
from publisher.package.pictures import problem
from support.packages import report_data

TEXT = """---
language: en
tags: [emoji, safety-hardened]
extra_gated_prompt: Say what you need it for.
---
# About us

![What it draws](pictures/a%20sheet.png "a sheet")
![The same](pictures/a%20sheet.png) and [a page](https://example.org/x.png), ![elsewhere](https://example.org/y.png)
"""


def write(folder: Path, text: str = TEXT) -> Path:
    """Write a card with a picture that says more than its pixels."""
    (folder / "pictures").mkdir(exist_ok=True)
    secret = PngInfo()
    secret.add_text("author", "a name that stays here")
    Image.new("RGB", (9, 7), (200, 0, 0)).save(folder / "pictures" / "a sheet.png", pnginfo=secret)
    (folder / "card.md").write_text(text)
    return folder / "card.md"


def rendered(own: OwnCard | None = None, **changes: object) -> str:
    return card.render(ReleaseReport.parse(report_data() | changes), base_card=False, own=own).decode()


def test_pictures_travel_as_pixels_alone_and_links_lead_to_them(tmp_path: Path) -> None:
    own = read_own_card(write(tmp_path))
    assert list(own.images) == ["images/a-sheet.png"]
    data = own.images["images/a-sheet.png"]
    assert problem(data) == ""
    assert b"author" not in data
    assert Image.open(io.BytesIO(data)).size == (9, 7)
    assert '![What it draws](images/a-sheet.png "a sheet")' in own.text
    assert own.text.count("images/a-sheet.png") == 2
    assert "https://example.org/y.png" in own.text


def test_the_publishers_text_comes_first_and_the_release_keeps_what_it_knows(tmp_path: Path) -> None:
    text = rendered(read_own_card(write(tmp_path)))
    assert text.index("# About us") < text.index("The release's decision")
    found = ModelCard(text).data
    assert (found.language, found.license, found.base_model) == ("en", "apache-2.0", "org/base")
    assert found.to_dict()["base_model_relation"] == "finetune"
    assert found.to_dict()["extra_gated_prompt"] == "Say what you need it for."
    assert found.tags[:2] == ["safety-hardened", "model-publisher"]
    assert found.tags[-1] == "emoji"
    assert found.tags.count("safety-hardened") == 1


def test_the_hub_reads_the_numbers_with_their_intervals() -> None:
    (result,) = ModelCard(rendered()).data.eval_results
    assert (result.metric_type, result.metric_value) == ("rate", 0.0)
    assert result.metric_args["n"] == 60
    assert result.metric_args["high"] > 0
    assert result.metric_args["gate"] == {"upper_at_most": 0.1}
    assert result.metric_args["verdict"] == "passed"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        ("openrail++", {"license": "openrail++"}),
        ("My Licence 1.0", {"license": "other", "license_name": "my-licence-1.0", "license_link": "LICENSE"}),
        ("my-licence-1.0", {"license": "other", "license_name": "my-licence-1.0", "license_link": "LICENSE"}),
    ],
)
def test_a_licence_that_the_hub_does_not_list_is_another_with_a_name_and_a_link(
    name: str, expected: dict[str, str]
) -> None:
    text = card.render(ReleaseReport.parse(report_data() | {"license": name}), base_card=False, license_file="LICENSE")
    data = yaml.safe_load(text.decode().split("---\n")[1])
    assert {key: value for key, value in data.items() if key.startswith("license")} == expected


def test_the_card_says_who_publishes_and_for_what() -> None:
    said = {"provider": "Acme *Ltd*", "contact": "safety@acme.example", "acceptable_use": "Nothing harmful."}
    gone = [{"id": "cigarette", "name": "cigarette", "kind": "object", "hazard": "AILuminate: none"}]
    text = rendered(publisher=said, concepts=gone)
    assert "- Provider: Acme \\*Ltd\\*" in text
    assert "- Hazard of cigarette: AILuminate: none" in text
    assert yaml.safe_load(text.split("---\n")[1])["extra_gated_prompt"] == "Nothing harmful."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("---\nlicense: mit\n---\n", "front matter has 'license', which the release knows"),
        ("---\n- a\n---\n", "front matter is no mapping"),
        ("---\na: [\n---\n", "card.md:3: its front matter is no YAML"),
        ("![x](../x.png)", "shows ../x.png, which is not below the card's folder"),
        ("![x](missing.png)", "shows missing.png, which is not there"),
        ("![x](card.md)", "is no PNG image"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        read_own_card(write(tmp_path, text))
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "![x](pictures/a%20sheet.png) ![y](a-sheet.png)")
    Image.new("RGB", (3, 3)).save(tmp_path / "a-sheet.png")
    with pytest.raises(UsageError, match=r"two pictures would be called images/a-sheet\.png"):
        read_own_card(path)
