"""Models that an attacker makes of a release and the base model, without training: tensors mixed, then asked."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import Anatomy, Attack, Params, WeightAttack
from publisher.api.header import read_header
from publisher.errors import CRASHES, PublisherError
from publisher.evaluate.context import ModelUnderTest, Setting, Unmeasured
from publisher.evaluate.requests import one_line
from publisher.model.copying import Overwrite, copy_file
from publisher.model.digest import sha256_json
from publisher.model.tensors import dtype_name, tensor_bytes

if TYPE_CHECKING:
    import torch

Alter = Callable[[str, str, "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Component, name, hardened and base tensor to what takes their place."""


@contextmanager
def altered(
    attack: Attack[Any], params: Params, attacked: ModelUnderTest, base: ModelUnderTest, setting: Setting
) -> Iterator[ModelUnderTest]:
    """Yield a model after the attack, with nothing attached; its folder is gone when the block ends.

    Every tensor that differs from the base model's goes through the attack, one at a time in memory; of some attacks
    every tensor.

    Raises:
        Unmeasured: the attack crashed or broke its contract, or the two models have different tensors.
        PublisherError: the disk is full.
    """
    if not isinstance(attack, WeightAttack):
        raise Unmeasured(f"the attack {attack.name!r} alters no weights")
    hardened, base = attacked.bare, base.bare
    name = sha256_json([attack.name, attack.version, params.as_json(), hardened.digest, base.digest])
    with _place(setting.work, name) as folder:
        for source in sorted(path for path in hardened.folder.glob("*/*") if path.parent.name != "release"):
            target = folder / source.relative_to(hardened.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.resolve())
        (folder / "model_index.json").symlink_to((hardened.folder / "model_index.json").resolve())
        _open(attack, params, hardened.folder)
        for path in sorted(folder.glob("*/*.safetensors")):
            alter = _caller(attack, params, hardened.anatomy)
            _rewrite(path, base.folder / path.relative_to(folder), alter, every=attack.every_tensor)
        yield ModelUnderTest.of(folder, hardened.anatomy)


@contextmanager
def _place(work: Path | None, name: str) -> Iterator[Path]:
    if work is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    folder = work / f"altered-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rewrite(path: Path, base: Path, alter: Alter, *, every: bool) -> None:
    """Replace a link to the hardened model's file by the attacker's file, where it differs from the base model's."""
    from safetensors import safe_open

    try:
        tensors, others = read_header(path), read_header(base)
    except (OSError, ValueError) as error:
        raise Unmeasured(f"the models cannot be mixed: {one_line(error)}") from error
    if {(t.name, t.shape) for t in tensors.values()} != {(t.name, t.shape) for t in others.values()}:
        raise Unmeasured(f"the models cannot be mixed: {path.parent.name} has other tensors than the base model's")
    source = path.resolve()
    with safe_open(source, framework="pt") as ours, safe_open(base, framework="pt") as theirs:

        def replaced(name: str) -> bytes | None:
            hardened = ours.get_tensor(name)
            original = theirs.get_tensor(name).to(hardened.dtype)  # a reference may be stored in another one
            before = tensor_bytes(hardened)
            if not every and before == tensor_bytes(original):
                return None
            return tensor_bytes(alter(path.parent.name, name, hardened, original))

        path.unlink()
        copy_file(source, path, Overwrite(tensors, replaced))


def _open(attack: WeightAttack[Any], params: Params, folder: Path) -> None:
    """Let the attack read what it needs of the hardened model; where it cannot, its checks are unknown."""
    try:
        attack.open(params, folder)
    except CRASHES as error:
        raise Unmeasured(f"the attack {attack.name!r} cannot begin: {one_line(error)}") from error


def fault_of(attack: Attack[Any], params: Params) -> str:
    """Return the fault that the attack found in the tensors of the model that it altered last; empty: none.

    Raises:
        Unmeasured: it crashed.
    """
    try:
        return attack.fault(params) if isinstance(attack, WeightAttack) else ""
    except CRASHES as error:
        raise Unmeasured(f"the attack {attack.name!r} crashed: {one_line(error)}") from error


def _caller(attack: WeightAttack[Any], params: Params, anatomy: Anatomy) -> Alter:
    """Return the attack as a function whose errors and results are checked."""
    import torch

    def alter(component: str, name: str, hardened: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        try:
            found = attack.alter(params, anatomy, component, name, hardened, base)
        except PublisherError:
            raise
        except CRASHES as error:  # a plugin may raise anything; its checks become unknown
            raise Unmeasured(f"the attack {attack.name!r} crashed: {one_line(error)}") from error
        if not isinstance(found, torch.Tensor) or found.shape != hardened.shape or found.dtype != hardened.dtype:
            what = f"{dtype_name(hardened)} {tuple(hardened.shape)}"
            raise Unmeasured(f"the attack {attack.name!r} put something else than {what} into {component}/{name}")
        return found

    return alter
