"""What attackers leave as it is: the package's freeze mask, and other masks to compare it with."""

from __future__ import annotations

from pydantic import ValidationError

from publisher.api import TrainingParams
from publisher.api.freeze_mask import FreezeMask, Frozen, random_mask
from publisher.evaluate.context import ModelUnderTest, Unmeasured
from publisher.evaluate.finetune.trials import seed_of
from publisher.evaluate.requests import one_line
from publisher.model.digest import sha256_json
from publisher.model.strict_json import JsonError, strict_object

UNMASKED, RANDOM = "unmasked", "random-mask"
"""Controls of the hardened model: no mask, and a random one of as many parameters, another one for each trial."""
OTHER = "seed-"
"""How the names begin of further masks that a package brings."""
DENOISER = "unet"
"""The component that trials train."""


def is_masked(name: str, params: TrainingParams) -> bool:
    """Whether a control is the hardened model under another mask."""
    return params.mask and (name in (UNMASKED, RANDOM) or name.startswith(OTHER))


def masks_of(params: TrainingParams, hardened: ModelUnderTest, seed: int) -> dict[str, tuple[Frozen, ...]]:
    """What every trial of every masked model leaves as it is.

    Args:
        params: of the attack.
        hardened: the model whose package has the mask.
        seed: of the evaluation; random masks depend on it and on the trial's number, not on concept or attack.

    Returns:
        Model's name -> one for each trial; ``hardened`` is among them. Nothing where the attacker honours no mask.

    Raises:
        Unmeasured: the package has no mask, it cannot be read or is for another component, or it lacks one of the
            masks to compare with.
    """
    if not params.mask:
        return {}
    mask = read_mask(hardened)
    found: dict[str, tuple[Frozen, ...]] = {"hardened": (mask.rows,) * params.seeds}
    for name in (name for name in params.controls if is_masked(name, params)):
        if name == UNMASKED:
            found[name] = ({},) * params.seeds
        elif name == RANDOM:
            found[name] = tuple(_random(mask, seed, number) for number in range(params.seeds))
        elif name in mask.others:
            found[name] = (mask.others[name],) * params.seeds
        else:
            there = ", ".join(sorted(mask.others)) or "none"
            raise Unmeasured(f"the package's freeze mask has no {name!r} to compare with; there: {there}")
    return found


def read_mask(model: ModelUnderTest) -> FreezeMask:
    """The mask of a package.

    Raises:
        Unmeasured: there is none, it cannot be read, or it is for another component than trials train.
    """
    if model.mask is None:
        raise Unmeasured("the attacker is to honour a freeze mask, and the package has none")
    try:
        mask = FreezeMask.parse(strict_object(model.mask.read_bytes()))
    except (OSError, JsonError, ValidationError) as error:
        raise Unmeasured(f"the package's freeze mask cannot be read: {one_line(error)}") from error
    if mask.component != DENOISER:
        raise Unmeasured(f"the package's freeze mask is for {mask.component!r}, and attacks train {DENOISER!r}")
    return mask


def frozen_digest(frozen: Frozen) -> str:
    """sha256 that names what is frozen; empty: nothing is."""
    return sha256_json({name: list(rows) for name, rows in frozen.items()}) if frozen else ""


def _random(mask: FreezeMask, seed: int, number: int) -> Frozen:
    import torch

    generator = torch.Generator().manual_seed(seed_of(RANDOM, seed, number))
    return random_mask(mask.candidates, mask.parameters.frozen, generator)
