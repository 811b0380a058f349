"""Keys to sign with."""

from __future__ import annotations

from pathlib import Path

from publisher.package import keys


def new_key(folder: Path) -> keys.PrivateKey:
    """Make a key pair, ``a.key`` and ``a.pub``, without a passphrase."""
    keys.generate(folder / "a.key", folder / "a.pub", None)
    return keys.load_private(folder / "a.key")
