"""Merkle trees over salted leaves: a holder can show that a picture was in a slice, and nobody can guess one.

    leaf = SHA256(0x00 || salt || SHA256(image file) || SHA256(caption))
    node = SHA256(0x01 || smaller || larger)                                   an odd one goes up as it is

The prefixes keep a node from being taken for a leaf. Leaves are sorted, and so are the two halves of a node: a path
needs no sides. Without its salt a leaf tells nothing of the picture.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from publisher.api.params import Params

LEAF, NODE = b"\x00", b"\x01"


class Receipt(Params):
    """What a rights holder keeps of one picture: with it, picture and caption the ledger can be checked."""

    slice: str
    """Id of the slice."""
    salt: str
    """Salt of the leaf, in hex."""
    path: tuple[str, ...] = ()
    """Neighbours of the leaf and of each node above it, in hex, from the leaf up."""

    def root(self, image: bytes, caption: str) -> str:
        """Return the root that picture, caption and path lead to, in hex.

        Args:
            image: content of the picture's file.
            caption: as the training read it.
        """
        found = bytes.fromhex(leaf_of(bytes.fromhex(self.salt), image, caption))
        for other in self.path:
            found = _node(found, bytes.fromhex(other))
        return found.hex()


def salt_of(secret: bytes, number: int) -> bytes:
    """Return the salt of a slice's picture.

    Args:
        secret: of the slice. Whoever deletes it deletes the link between leaves and persons.
        number: of the picture in the slice.
    """
    return hmac.new(secret, str(number).encode(), hashlib.sha256).digest()


def leaf_of(salt: bytes, image: bytes, caption: str) -> str:
    """Return the leaf of a picture and its caption, in hex."""
    parts = (hashlib.sha256(image).digest(), hashlib.sha256(caption.encode()).digest())
    return hashlib.sha256(LEAF + salt + b"".join(parts)).hexdigest()


def receipts(name: str, salts: Mapping[str, bytes]) -> tuple[str, dict[str, Receipt]]:
    """Build the tree of a slice.

    Args:
        name: id of the slice.
        salts: leaf in hex -> its salt; at least one.

    Returns:
        The root in hex, and the receipt of each leaf.
    """
    paths: dict[str, list[str]] = {leaf: [] for leaf in salts}
    level: list[tuple[bytes, Sequence[str]]] = [(bytes.fromhex(leaf), (leaf,)) for leaf in sorted(salts)]
    while len(level) > 1:
        above = []
        for index in range(0, len(level), 2):
            pair = level[index : index + 2]
            if len(pair) == 1:
                above.append(pair[0])
                continue
            (left, mine), (right, others) = pair
            for leaf in mine:
                paths[leaf].append(right.hex())
            for leaf in others:
                paths[leaf].append(left.hex())
            above.append((_node(left, right), (*mine, *others)))
        level = above
    root = level[0][0].hex()
    return root, {leaf: Receipt(slice=name, salt=salt.hex(), path=tuple(paths[leaf])) for leaf, salt in salts.items()}


def _node(one: bytes, other: bytes) -> bytes:
    return hashlib.sha256(NODE + min(one, other) + max(one, other)).digest()
