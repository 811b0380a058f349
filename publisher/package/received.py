"""A package as a hub hands it out: with what hubs add, and linked as their client's cache links; nothing else.

A repository of the hub begins with a ``.gitattributes``; a download into a folder leaves notes in
``.cache/huggingface``; a download into the cache is a folder of links.
"""

from __future__ import annotations

from pathlib import Path

from publisher.package.hub_cache import HubCache
from publisher.package.tree import Tree, walk_tree

ATTRIBUTES = ".gitattributes"
NOTES = ".cache/huggingface"
"""Where the hub's client notes what it has downloaded into a folder."""
MAX_ATTRIBUTES = 64 * 1024
"""Bytes of a ``.gitattributes``, at most."""
_FILTER = ["filter=lfs", "diff=lfs", "merge=lfs", "-text"]


def received(folder: Path) -> Tree:
    """Walk a folder that may come from a hub, without what hubs add to it. Nothing else is hashed.

    Left out are ``.gitattributes`` at the root, if it holds nothing but filter lines, and the client's notes in
    ``.cache/huggingface``. Links are followed in a snapshot of the client's cache, into the store of that cache alone;
    all others are findings.

    Raises:
        UsageError: the folder itself cannot be read.
    """
    tree = walk_tree(folder, cache=HubCache.around(folder), aside=NOTES)
    if ATTRIBUTES in tree.files and tree.size(ATTRIBUTES) <= MAX_ATTRIBUTES:
        _drop_attributes(tree)
    return tree


def _drop_attributes(tree: Tree) -> None:
    """Forget a ``.gitattributes`` that holds nothing but filter lines; leave any other in, to be refused."""
    tree.hash(ATTRIBUTES)
    data = tree.read(ATTRIBUTES, MAX_ATTRIBUTES) if ATTRIBUTES in tree.digests else None
    tree.digests.pop(ATTRIBUTES, None)
    if data is not None and all(_is_filter(line) for line in data.decode(errors="replace").splitlines()):
        tree.files.remove(ATTRIBUTES)


def _is_filter(line: str) -> bool:
    pattern, *attributes = line.split() or [""]
    return not pattern or pattern.startswith("#") or attributes == _FILTER
