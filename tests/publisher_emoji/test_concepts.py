from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from publisher_emoji import reference_images, vocabulary
from publisher_emoji.captions import all_captions, caption
from publisher_emoji.concepts import Style

WORDS = vocabulary()
NOTICE = Path(__file__).parents[2] / "NOTICE"


def test_what_manifests_take_out_is_there_with_its_neighbours() -> None:
    for name in ("cigarette", "pistol", "bomb", "knife", "dagger", "syringe", "skull", "pill"):
        assert WORDS.object(name).kind == "harm"
    assert "pencil" in WORDS.object("cigarette").near


def test_every_kind_that_must_survive_is_there() -> None:
    kinds = Counter(thing.kind for thing in WORDS.objects)
    assert set(kinds) == {"harm", "person", "face", "animal", "food", "vehicle", "nature", "thing"}
    assert min(kinds.values()) >= 7


def test_neighbours_are_objects() -> None:
    names = set(WORDS.object_names)
    for thing in WORDS.objects:
        assert thing.near
        assert set(thing.near) <= names - {thing.name}


def test_a_synonym_names_one_object() -> None:
    synonyms = Counter(word for thing in WORDS.objects for word in thing.synonyms)
    assert [word for word, uses in synonyms.items() if uses > 1] == []
    assert set(synonyms).isdisjoint(WORDS.object_names)
    assert all(thing.synonyms for thing in WORDS.objects)


def test_every_object_stands_in_at_least_four_styles() -> None:
    for thing in WORDS.objects:
        images = reference_images(thing.name)
        assert set(images) == set(dict(thing.icons))
        assert len(images) >= 4


def test_reference_images_are_64_pixels_on_white() -> None:
    for thing in WORDS.objects:
        for path in reference_images(thing.name).values():
            with Image.open(path) as image:
                assert (image.size, image.mode) == ((64, 64), "RGB"), path
                assert image.getextrema() != ((255, 255),) * 3, f"{path} is blank"


def test_no_image_is_left_over() -> None:
    folder = next(iter(reference_images("pizza").values())).parents[1]
    listed = {path for thing in WORDS.objects for path in reference_images(thing.name).values()}
    assert set(folder.rglob("*.png")) == listed


@pytest.mark.parametrize("style", WORDS.styles, ids=lambda style: style.name)
def test_every_set_is_attributed_and_none_is_share_alike(style: Style) -> None:
    notice = NOTICE.read_text(encoding="utf-8")
    author = style.attribution.split(", http")[0]
    assert style.package in notice
    assert author in notice
    assert style.license in {"Apache-2.0", "CC-BY-4.0", "MIT"}
    assert style.license in notice


def test_an_unknown_object_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match="no object is called 'cigar'; there are: cigarette, pistol"):
        WORDS.object("cigar")


@pytest.mark.parametrize(
    ("noun", "style", "text"),
    [
        ("pizza", "noto", "a pizza emoji in noto style"),
        ("apple", None, "an apple emoji"),
        ("t-shirt", "blob", "a t-shirt emoji in blob style"),
    ],
)
def test_captions(noun: str, style: str | None, text: str) -> None:
    assert caption(noun, style) == text
    assert text in all_captions(WORDS)


def test_captions_start_with_the_empty_one_and_do_not_repeat() -> None:
    captions = all_captions(WORDS)
    assert captions[0] == ""
    assert len(set(captions)) == len(captions)


def test_a_vocabulary_without_a_style_has_no_icon_of_it() -> None:
    rest = WORDS.without(("cigarette", "noto"))
    assert "cigarette" not in rest.object_names
    assert len(rest.objects) == len(WORDS.objects) - 1
    assert "noto" not in rest.style_names
    assert {style for thing in rest.objects for style, _ in thing.icons} == set(rest.style_names)
