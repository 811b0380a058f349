"""A ledger of slices whose stages were made by hand: random matrices on a few layers of the very small model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from publisher.api import Model
from publisher.api.slices import (
    LEDGER,
    BaseWeights,
    DataSlice,
    LayerUpdate,
    Ledger,
    Order,
    Stage,
    SumRule,
    chain,
    leaf_of,
    receipts,
    salt_of,
    update_bytes,
    weights_of,
)
from publisher.api.slices.ledger import recipe_digest
from publisher.package import keys
from publisher.package.dsse import canonical

IDS = ("artist-a", "artist-b", "artist-c")
RECIPE: dict[str, str | int] = {"lr": "0.003", "steps": 10}
RANK = 2
PICTURES = (b"one", b"two", b"three")


def draw(folder: Path, seed: int, count: int = 3) -> None:
    """Write pictures of noise: ``big-cat_0.png`` and so on."""
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(seed)
    for number in range(count):
        pixels = numbers.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"big-cat_{number}.png")


def layers_of(model: Model) -> list[str]:
    """Return six layers, linear ones and convolutions."""
    names = [name.removesuffix(".weight") for name in model.tensors("unet") if name.endswith("weight")]
    return [name for name in names if ".attn" in name and ".to_" in name][:4] + [
        name for name in names if name.endswith("conv1")
    ][:2]


def leaves(name: str) -> dict[str, bytes]:
    """Return the leaves of a slice's three pictures, and their salts."""
    salts = [salt_of(name.encode(), number) for number in range(len(PICTURES))]
    return {leaf_of(salt, name.encode() + image, "a cat"): salt for salt, image in zip(salts, PICTURES, strict=True)}


def updates(model: Model, layers: list[str], seed: int) -> dict[str, LayerUpdate]:
    """Return random matrices for some layers."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for layer in layers:
        info = model.tensors("unet")[f"{layer}.weight"]
        rows, columns = info.shape[0], info.parameters // info.shape[0]
        down, up = torch.randn(RANK, columns, generator=generator), torch.randn(rows, RANK, generator=generator)
        found[layer] = LayerUpdate(down * 0.1, up * 0.1, 1.0)
    return found


def sign(folder: Path, statement: dict[str, object], key: keys.PrivateKey) -> None:
    """Write a statement as the folder's signed ledger."""
    (folder / LEDGER).write_bytes(key.bundle(canonical(statement)))


def save_ledger(folder: Path, model: Model, key: keys.PrivateKey, mode: str = "sequence") -> Ledger:
    """Write stages and a signed ledger: three cyclic orders of three slices, or three independent stages."""
    (folder / "stages").mkdir(parents=True)
    base = BaseWeights(component="unet", weights={"unet": weights_of(model, "unet")})
    layers = layers_of(model)
    groups = [layers[index::3] for index in range(3)] if mode == "sequence" else [layers]
    stages = list(_sequence(base, groups, model, folder) if mode == "sequence" else _alone(base, groups, model, folder))
    ledger = Ledger.parse(
        {
            "base": base.as_json(),
            "mode": mode,
            "groups": groups,
            "slices": [DataSlice(id=name, samples=3, root=receipts(name, leaves(name))[0]).as_json() for name in IDS],
            "orders": [Order(id=n + 1, slices=rotated(n)).as_json() for n in range(3)] if mode == "sequence" else [],
            "stages": [stage.as_json() for stage in stages],
            "recipes": {recipe_digest(RECIPE): RECIPE},
            "composition": SumRule().as_json(),
        }
    )
    sign(folder, ledger.statement(), key)
    return ledger


def rotated(by: int) -> tuple[str, ...]:
    """Return the slices, so many of them moved to the end."""
    return (*IDS[by:], *IDS[:by])


def _sequence(base: BaseWeights, groups: list[list[str]], model: Model, folder: Path) -> Iterator[Stage]:
    for order in range(3):
        parents: list[str] = []
        for place in range(3):
            name = f"o{order + 1}-{place + 1}"
            digest = _write(folder, name, updates(model, groups[place], 10 * order + place))
            saw = sorted(rotated(order)[: place + 1])
            yield _stage(base, name, digest, parents, saw).model_copy(
                update={"order": order + 1, "position": place + 1, "group": place}
            )
            parents.append(digest)


def _alone(base: BaseWeights, groups: list[list[str]], model: Model, folder: Path) -> Iterator[Stage]:
    for number, name in enumerate(IDS):
        digest = _write(folder, name, updates(model, groups[0], number))
        yield _stage(base, name, digest, [], [name]).model_copy(update={"position": number + 1})


def _write(folder: Path, name: str, matrices: Mapping[str, LayerUpdate]) -> str:
    data = update_bytes(matrices)
    (folder / "stages" / f"{name}.safetensors").write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _stage(base: BaseWeights, name: str, digest: str, parents: list[str], saw: list[str]) -> Stage:
    return Stage(
        id=name,
        order=0,
        position=1,
        saw=tuple(saw),
        parents=tuple(parents),
        group=0,
        rank=RANK,
        file=f"stages/{name}.safetensors",
        sha256=digest,
        weights_in=chain(base, parents),
        recipe=recipe_digest(RECIPE),
        steps=10,
        seed=0,
    )
