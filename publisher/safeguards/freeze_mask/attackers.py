"""What attackers who honour a freeze mask leave as it is: under the package's mask, and under others to compare it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from publisher.api import TrainingParams
from publisher.api.freeze_mask import FILE, FreezeMask, Frozen, random_mask
from publisher.api.training import RANDOM_MASK, UNMASKED
from publisher.errors import ModelError, in_words
from publisher.model.digest import seed_of
from publisher.strict_json import JsonError, strict_object


def masks_of(params: TrainingParams, folder: Path | None, seed: int, denoiser: str) -> dict[str, tuple[Frozen, ...]]:
    """Return what every trial of every masked model leaves as it is.

    Args:
        params: of the attack.
        folder: a package's ``release``, where its mask lies; None: there is none.
        seed: of the evaluation; random masks depend on it and on the trial's number, not on concept or attack.
        denoiser: component that trials train.

    Returns:
        Model's name -> one for each trial; ``hardened`` is among them. Nothing where the attacker honours no mask.

    Raises:
        ModelError: the package has no mask, it cannot be read or is for another component, or it lacks one of the
            masks to compare with.
    """
    if not params.mask:
        return {}
    mask = _read(folder, denoiser)
    found: dict[str, tuple[Frozen, ...]] = {"hardened": (mask.rows,) * params.seeds}
    for name in (name for name in params.controls if params.is_masked(name)):
        if name == UNMASKED:
            found[name] = ({},) * params.seeds
        elif name == RANDOM_MASK:
            found[name] = tuple(_random(mask, seed, number) for number in range(params.seeds))
        elif name in mask.others:
            found[name] = (mask.others[name],) * params.seeds
        else:
            there = ", ".join(sorted(mask.others)) or "none"
            raise ModelError(f"the package's freeze mask has no {name!r} to compare with; there: {there}")
    return found


def _read(folder: Path | None, denoiser: str) -> FreezeMask:
    if folder is None or not (folder / FILE).is_file():
        raise ModelError("the attacker is to honour a freeze mask, and the package has none")
    try:
        mask = FreezeMask.parse(strict_object((folder / FILE).read_bytes()))
    except (OSError, JsonError, ValidationError) as error:
        reason = " ".join(in_words(error).split())[:300]
        raise ModelError(f"the package's freeze mask cannot be read: {reason}") from error
    if mask.component != denoiser:
        raise ModelError(f"the package's freeze mask is for {mask.component!r}, and attacks train {denoiser!r}")
    return mask


def _random(mask: FreezeMask, seed: int, number: int) -> Frozen:
    import torch

    generator = torch.Generator().manual_seed(seed_of(RANDOM_MASK, seed, number))
    return random_mask(mask.candidates, mask.parameters.frozen, generator)
