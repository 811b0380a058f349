"""A folder from elsewhere, read without following anything out of it."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from publisher.codes import Code, Finding
from publisher.errors import UsageError
from publisher.package.hub_cache import OPEN, HubCache
from publisher.package.layout import MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES, TOTALS

Stamp = tuple[int, int, int, int, int]


@dataclass
class Tree:
    """What was found in a folder."""

    root: Path
    cache: HubCache | None = None
    """The cache of a hub's client, whose links into its store are followed; None: no link is."""
    aside: str = ""
    """Path of a folder that is not looked into; empty: none."""
    digests: dict[str, str] = field(default_factory=dict)
    """Path of each regular file that was hashed -> sha256 in hex."""
    stamps: dict[str, Stamp] = field(default_factory=dict)
    """Path of each file and folder -> device, inode, size, mtime and ctime; of a link, those of its target."""
    links: dict[str, str] = field(default_factory=dict)
    """Path of each link into the cache's store -> what the link says."""
    files: set[str] = field(default_factory=set)
    """Paths of the regular files, and of the links to such in the cache's store."""
    findings: list[Finding] = field(default_factory=list)
    seen: int = 0
    """Entries of folders that were looked at, links and special files included."""
    used: Counter[str] = field(default_factory=Counter)
    """What counts towards a limit of the whole folder -> how much of it was used."""

    def size(self, path: str) -> int:
        """Return a file's bytes."""
        return self.stamps[path][2]

    def charge(self, path: str, what: str, amount: int) -> bool:
        """Count something towards a limit of the whole folder (:data:`publisher.package.layout.TOTALS`).

        Returns:
            Whether the limit is kept; otherwise there is a finding that names it.
        """
        self.used[what] += amount
        if self.used[what] <= TOTALS[what]:
            return True
        self.findings.append(
            Finding(Code.LIMIT, path, f"is not examined: all files together have more than {TOTALS[what]} {what}")
        )
        return False

    def hash(self, path: str, known: str = "") -> None:
        """Hash a file from the descriptor that was checked, unless that would exceed a limit.

        Args:
            path: of the file.
            known: its sha256 where that is known already; the file is then not read.
        """
        if self.size(path) > MAX_FILE_BYTES:
            self.findings.append(Finding(Code.LIMIT, path, f"is larger than {MAX_FILE_BYTES} bytes"))
            return
        if not self.charge(path, "bytes", self.size(path)):
            return
        if known:
            self.digests[path] = known
            return
        try:
            with os.fdopen(self._open(path), "rb") as file:
                if _stamp(os.fstat(file.fileno())) != self.stamps[path]:
                    message = "was replaced while it was being opened"
                    self.findings.append(Finding(Code.CHANGED_MEANWHILE, path, message))
                    return
                self.digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            _vanished(self, path, error)

    def read(self, path: str, limit: int) -> bytes | None:
        """Read a file of at most ``limit`` bytes that is still what was hashed; else None, and a finding.

        Links are not followed, in no part of the path, but those into the cache's store.
        """
        if self.size(path) > limit:
            self.findings.append(Finding(Code.LIMIT, path, f"is larger than {limit} bytes"))
            return None
        try:
            with os.fdopen(self._open(path), "rb") as file:
                data = file.read(limit + 1)
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() != self.digests[path]:
            self.findings.append(Finding(Code.CHANGED_MEANWHILE, path, "is not what it was a moment ago"))
            return None
        return data

    def recheck(self) -> list[Finding]:
        """Return a finding for everything that has changed since the folder was read."""
        again = Tree(self.root, self.cache, self.aside)
        for path, status in _walk(again):
            again.stamps[path] = _stamp(status)
        differing = sorted(
            path
            for path in {*self.stamps, *again.stamps}
            if (self.stamps.get(path), self.links.get(path)) != (again.stamps.get(path), again.links.get(path))
        )
        return [Finding(Code.CHANGED_MEANWHILE, path, "changed while it was being verified") for path in differing]

    def untouched(self) -> dict[str, str]:
        """Return path -> sha256 of the files that nothing has written to or moved since the folder was read."""
        touched = {finding.path for finding in self.recheck()}
        return {path: digest for path, digest in self.digests.items() if path not in touched}

    def _open(self, path: str) -> int:
        """Open a file, from the store where it was a link into that."""
        if self.cache is None or path not in self.links:
            return _open_inside(self.root, path)
        return self.cache.open(path, self.links[path])


def walk_tree(folder: Path, *, cache: HubCache | None = None, aside: str = "") -> Tree:
    """Walk a folder and hash nothing.

    Links, devices, pipes and hard links are findings and are never opened for reading.

    Args:
        folder: what is walked.
        cache: whose links into its store are followed; None: no link is.
        aside: path of a folder in it that is not looked into.

    Raises:
        UsageError: the folder itself cannot be read.
    """
    tree = Tree(folder, cache, aside)
    for path, status in _walk(tree):
        tree.stamps[path] = _stamp(status)
        if stat.S_ISREG(status.st_mode):
            tree.files.add(path)
    return tree


def read_tree(folder: Path, *, cache: HubCache | None = None, known: Mapping[str, str] = MappingProxyType({})) -> Tree:
    """Walk a folder and hash each regular file.

    Args:
        folder: what is walked.
        cache: whose links into its store are followed; None: no link is.
        known: path -> sha256 of files that this program has just written, or hashed and not seen change.

    Raises:
        UsageError: the folder itself cannot be read.
    """
    tree = walk_tree(folder, cache=cache)
    for path in sorted(tree.files):
        tree.hash(path, known.get(path, ""))
    return tree


@dataclass
class FileTree(Tree):
    """One file; what lies beside it is not looked at."""

    def recheck(self) -> list[Finding]:
        """Return a finding if the file has changed since it was read."""
        path = next(iter(self.stamps))
        try:
            same = self.stamps[path] == _stamp((self.root / path).lstat())
        except OSError:
            same = False
        return [] if same else [Finding(Code.CHANGED_MEANWHILE, path, "changed while it was being read")]


def read_file(path: Path) -> Tree:
    """Read a single regular file the same way: it becomes the only one in the folder that holds it.

    Raises:
        UsageError: it cannot be read.
    """
    tree = FileTree(path.parent)
    try:
        status = path.lstat()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    tree.stamps[path.name] = _stamp(status)
    if not stat.S_ISREG(status.st_mode):
        tree.findings.append(Finding(Code.SPECIAL_FILE, path.name, "is no regular file"))
    else:
        tree.files.add(path.name)
        tree.hash(path.name)
    return tree


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _walk(tree: Tree) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every file and folder below the root, the root as ``"."``; odd kinds become findings."""
    try:
        root = os.open(tree.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(
            f"cannot be read as a folder: {error.strerror}", where=str(tree.root), hint="Give the package's folder."
        ) from error
    try:
        yield ".", os.fstat(root)
        yield from _walk_folder(tree, root, "")
    finally:
        os.close(root)


def _walk_folder(tree: Tree, descriptor: int, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(descriptor) as entries:
            names = sorted(entry.name for entry in islice(entries, MAX_FILES + 1 - tree.seen))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(tree.root / prefix)) from error
    if not names and prefix:
        tree.findings.append(Finding(Code.EXTRA, prefix.rstrip("/"), "is an empty folder"))
    for name in names:
        path = prefix + name
        tree.seen += 1
        if tree.seen > MAX_FILES:
            tree.findings.append(Finding(Code.LIMIT, "", f"more than {MAX_FILES} files, folders and links"))
            return
        try:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except OSError as error:
            _vanished(tree, path, error)
            continue
        yield from _entry(tree, descriptor, path, status)


def _entry(tree: Tree, descriptor: int, path: str, status: os.stat_result) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what an entry of a folder stands for: itself, what is below it, or what it may link to."""
    name = path.rpartition("/")[2]
    if stat.S_ISDIR(status.st_mode):
        if path != tree.aside:
            yield path, status
            yield from _walk_below(tree, descriptor, name, path)
    elif stat.S_ISLNK(status.st_mode) and tree.cache is not None:
        yield from _follow(tree, descriptor, name, path)
    elif not stat.S_ISREG(status.st_mode):
        tree.findings.append(Finding(Code.SPECIAL_FILE, path, "is neither a regular file nor a folder"))
    elif status.st_nlink > 1:
        tree.findings.append(Finding(Code.SPECIAL_FILE, path, "is a hard link: it can be changed from outside"))
    else:
        yield path, status


def _follow(tree: Tree, descriptor: int, name: str, path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the file that a link into the cache's store stands for; any other link becomes a finding."""
    cache = tree.cache
    try:
        text = os.readlink(name, dir_fd=descriptor)
        target = cache.open(path, text) if cache else -1
    except OSError:
        message = "is a link to something else than a regular file in the store of this cache"
        tree.findings.append(Finding(Code.SPECIAL_FILE, path, message))
        return
    try:
        status = os.fstat(target)
    finally:
        os.close(target)
    tree.links[path] = text
    yield path, status


def _walk_below(tree: Tree, descriptor: int, name: str, path: str) -> Iterator[tuple[str, os.stat_result]]:
    if path.count("/") >= MAX_DEPTH - 1:
        tree.findings.append(Finding(Code.LIMIT, path, f"is deeper than {MAX_DEPTH} folders"))
        return
    try:
        below = os.open(name, OPEN | os.O_DIRECTORY, dir_fd=descriptor)
    except OSError as error:
        _vanished(tree, path, error)
        return
    try:
        yield from _walk_folder(tree, below, path + "/")
    finally:
        os.close(below)


def _open_inside(root: Path, path: str) -> int:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    *folders, name = path.split("/")
    try:
        for folder in folders:
            below = os.open(folder, OPEN | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        return os.open(name, OPEN, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _vanished(tree: Tree, path: str, error: OSError) -> None:
    if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ELOOP:
        tree.findings.append(Finding(Code.CHANGED_MEANWHILE, path, "vanished or was replaced while it was being read"))
        return
    raise UsageError(f"cannot be read: {error.strerror}", where=str(tree.root / path)) from error
