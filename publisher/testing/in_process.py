"""A whole release in this process: of a manifest's text, with plugins that are not installed."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.registry import load_registry
from publisher.testing.plugin import new_folder

if TYPE_CHECKING:
    from publisher.release.make import Outcome


@contextmanager
def installed(plugins: Mapping[str, str], folder: Path | None = None) -> Iterator[None]:
    """Install plugins for the time of a block: as a distribution whose entry points the registry finds.

    Processes that the block starts do not see it, unless they get this process's ``sys.path``.

    Args:
        plugins: name of an entry point -> module, or ``module:object``. The modules can be imported already.
        folder: gets the distribution's metadata; default: a new one that is removed when the process ends.
    """
    site = (folder or new_folder()) / "site"
    name = f"in-tests-{re.sub(r'[^a-z0-9]+', '-', '-'.join(sorted(plugins)).lower())}"
    info = site / f"{name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n", "utf-8")
    points = "".join(f"{name} = {value}\n" for name, value in plugins.items())
    (info / "entry_points.txt").write_text(f"[publisher]\n{points}", "utf-8")
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    load_registry.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        importlib.invalidate_caches()
        load_registry.cache_clear()


def release(manifest: str, *plugins: str, folder: Path | None = None) -> Outcome:
    """Make a release of a manifest, in this process, signed by a key that is thrown away.

    The manifest can name ``model: testing:tiny``, a very small model with random weights, and ``scorer: fake``
    (:class:`publisher.testing.FakeScorer`), which is also that model's default. It computes on the CPU unless it says
    otherwise, and takes seconds.

    Args:
        manifest: its text, as YAML.
        plugins: modules with hooks that are not installed, such as ``"publisher_dampen"``. Name none that is.
        folder: where manifest, package and reports go; files that the manifest names are relative to it. Default: a
            new one that is removed when the process ends.

    Returns:
        The outcome: ``decision``, ``report``, ``package`` (None unless everything passed), ``reports``.

    Raises:
        PublisherError: as ``publisher release`` would end with another exit code than 0, 1 and 4.
    """
    from publisher.package import keys
    from publisher.release.make import release as make_release
    from publisher.testing.running import Silent

    place = folder or new_folder()
    place.mkdir(parents=True, exist_ok=True)
    path = place / "manifest.yaml"
    path.write_text(manifest, encoding="utf-8")
    secret = new_folder() / "a.key"
    keys.generate(secret, secret.with_suffix(".pub"), None)
    entries = {"publisher_testing": "publisher.testing.fakes", **{name.replace(":", "."): name for name in plugins}}
    with installed(entries):
        return make_release(path, place / "out", place / "work", keys.load_private(secret), Silent(), give_key=True)
