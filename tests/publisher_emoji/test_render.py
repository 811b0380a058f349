from __future__ import annotations

from publisher_emoji.training.render import _document, render

RED = '<rect width="10" height="10" fill="#f00"/>'


def test_what_the_drawing_leaves_open_is_white() -> None:
    image = render(_document({"body": RED}, {"width": 20, "height": 20}))
    assert (image.size, image.mode) == ((64, 64), "RGB")
    assert image.getpixel((5, 5)) == (255, 0, 0)
    assert image.getpixel((60, 60)) == (255, 255, 255)


def test_a_wide_drawing_is_centred_on_a_square() -> None:
    image = render(_document({"body": RED, "width": 10, "height": 5}, {"width": 20, "height": 20}))
    assert image.size == (64, 64)
    assert [image.getpixel((32, y)) for y in (8, 32, 56)] == [(255, 255, 255), (255, 0, 0), (255, 255, 255)]


def test_the_icons_own_box_comes_before_the_sets() -> None:
    document = _document({"body": RED, "left": -5}, {"width": 20, "height": 20, "top": 1})
    assert 'viewBox="-5 1 20 20"' in document
