from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.api.slices import leaf_of, receipts, salt_of

SECRET = b"secret"


def tree(count: int) -> dict[str, tuple[bytes, bytes]]:
    """Return leaf -> picture and salt."""
    pictures = [f"picture {number}".encode() for number in range(count)]
    salts = [salt_of(SECRET, number) for number in range(count)]
    return {leaf_of(salt, one, "a cat"): (one, salt) for one, salt in zip(pictures, salts, strict=True)}


@given(st.integers(1, 40))
def test_every_receipt_leads_to_the_root_and_no_other_picture_does(count: int) -> None:
    known = tree(count)
    root, found = receipts("a", {leaf: salt for leaf, (_, salt) in known.items()})
    for leaf, (picture, _) in known.items():
        assert found[leaf].root(picture, "a cat") == root
        assert found[leaf].root(picture + b"!", "a cat") != root
        assert found[leaf].root(picture, "a dog") != root


def test_a_tree_of_three_is_the_one_of_its_formula() -> None:
    known = tree(3)
    first, second, third = (bytes.fromhex(leaf) for leaf in sorted(known))
    node = hashlib.sha256(b"\x01" + first + second).digest()
    wanted = hashlib.sha256(b"\x01" + min(node, third) + max(node, third)).hexdigest()
    assert receipts("a", {leaf: salt for leaf, (_, salt) in known.items()})[0] == wanted


def test_a_leaf_cannot_be_guessed_without_its_salt() -> None:
    assert leaf_of(salt_of(SECRET, 0), b"p", "c") != leaf_of(salt_of(b"other", 0), b"p", "c")
    assert leaf_of(salt_of(SECRET, 0), b"p", "c") != leaf_of(salt_of(SECRET, 1), b"p", "c")


@pytest.mark.parametrize("order", [1, -1])
def test_the_root_does_not_depend_on_the_order_of_the_pictures(order: int) -> None:
    salts = {leaf: salt for leaf, (_, salt) in tree(5).items()}
    assert receipts("a", dict(list(salts.items())[::order]))[0] == receipts("a", salts)[0]
