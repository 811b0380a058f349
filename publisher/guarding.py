"""Fine-tune under the freeze mask of a released package: verified first, then held at every optimizer step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api.freeze_mask import FILE, FreezeMask
from publisher.errors import UsageError
from publisher.hub.fetch import PREFIX
from publisher.loading import verified
from publisher.package.layout import RELEASE
from publisher.safeguards.freeze_mask.guard.reading import read_mask

if TYPE_CHECKING:
    from publisher.package.dsse import Anchor
    from publisher.safeguards.freeze_mask.guard.guard import Guard

EVERY = 50
"""Optimizer steps between two looks at the bytes of a handful of frozen tensors."""


def guard(
    model: Any, mask: str | Path | FreezeMask, *, verify_key: str | Path | Anchor | None, every: int = EVERY
) -> Guard:
    """Train a model under the mask of a package, from here until the guard is released or the model is gone.

    Frozen tensors ask for no gradient. At every step of any torch optimizer the guard refuses frozen tensors that were
    made trainable again and adapters on their layers; whatever saves the denoiser's weights has all frozen tensors
    compared bit by bit first. As a context manager it does so when the block ends, too.

    Args:
        model: a diffusers pipeline, or its denoiser (also inside of torch.compile or peft), with the released
            weights in any of float32, float16 and bfloat16.
        mask: folder of the package, or its name on the hub, ``hf:org/name@`` and a tag or a commit; or its
            ``freeze-mask.json``, or what that holds.
        verify_key: the publisher's public key in PEM, or what :func:`publisher.trust` returns; from the publisher and
            never from the package. None believes the mask without any check: only for files that you made yourself.
        every: optimizer steps between two looks at the bytes of a handful of frozen tensors.

    Returns:
        What the training may ask: ``parameters()``, ``exclude_modules()``, ``check()``, ``save()``, ``release()``.

    Raises:
        NotVerifiedError: the package is not what its publisher signed.
        NotTheModelError: a frozen tensor is missing, has another shape, or is not the published one; or the model was
            fine-tuned under another mask.
        MaskBrokenError: an adapter sits on a frozen layer already.
        ModelError: the package has no mask, or none that can be read; the pipeline has no such denoiser.
        UsageError: a key was given and a file of its own, which nobody signed; the model is guarded already, or was
            wrapped for distributed training before.
    """
    found = _mask(mask, Path(verify_key) if isinstance(verify_key, str) else verify_key)
    if every < 1:
        raise UsageError(f"every is {every}", hint="Give a number of steps, at least 1.")
    from publisher.safeguards.freeze_mask.guard.guard import Guard

    return Guard(model, found, every=every)


def _mask(mask: str | Path | FreezeMask, key: Path | Anchor | None) -> FreezeMask:
    if not isinstance(mask, FreezeMask) and (str(mask).startswith(PREFIX) or not Path(mask).is_file()):
        return read_mask(verified(mask, key) / RELEASE / FILE)
    if key is not None:
        raise UsageError(
            "a mask by itself has no signature, so there is nothing to check with the key",
            hint="Give the package's folder, or verify_key=None for a mask that you made yourself.",
        )
    return mask if isinstance(mask, FreezeMask) else read_mask(Path(mask))
