"""Load a released package for use: verified first, with its membranes attached and opened by the prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api.membranes import Transport
from publisher.errors import ExitCode, PrerequisiteError, PublisherError, UsageError
from publisher.model.folder import read_configs
from publisher.package.layout import RELEASE
from publisher.package.verify import verify
from publisher.registry import load_registry
from publisher.runtime.pipelines import load as load_pipeline
from publisher.safeguards import attach
from publisher.text import printable

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

DTYPES = ("float32", "float16", "bfloat16")


class NotVerifiedError(PublisherError):
    """The package is not what its publisher signed; nothing of it was loaded."""

    exit_code = ExitCode.REFUSED


def load(
    package: str | Path,
    *,
    verify_key: str | Path | None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    transport: Transport | None = None,
) -> DiffusionPipeline:
    """Load a released package as a diffusers pipeline, as its publisher means it to be used.

    Its membranes are attached and open by the prompt, and a safety checker that it brings is kept. The attribute
    ``membranes`` of the pipeline is what was attached, or None
    (:class:`publisher.safeguards.membranes.attached.Attached`).

    Args:
        package: folder of the package.
        verify_key: the publisher's public key in PEM, which comes from the publisher and never from the package. None
            loads without any check: only for files that you made yourself.
        device: default: a GPU if torch sees one, else the CPU.
        dtype: of all weights; default: float32 on the CPU, bfloat16 elsewhere.
        transport: how prompts open the membranes; default: as the package says, which is what was tested.

    Raises:
        NotVerifiedError: with everything that is wrong.
        ModelError: the model or a membrane cannot be loaded, or they do not fit together.
        UsageError: package or key cannot be read; an unknown device or dtype.
        PrerequisiteError: a GPU was asked for and there is none.
    """
    folder = Path(package)
    if verify_key is not None:
        require_verified(folder, Path(verify_key))
    where = _device(device)
    _, anatomy = load_registry().recognise(read_configs(folder), str(folder))
    pipeline = load_pipeline(folder, anatomy, where, _dtype(dtype, where), filters=True)
    attached = attach(pipeline, folder / RELEASE, transport)
    pipeline.membranes = attached[0] if attached else None
    return pipeline


def require_verified(folder: Path, key: Path) -> None:
    """Refuse a package that is not what its publisher signed.

    Args:
        folder: the package.
        key: the publisher's public key in PEM.

    Raises:
        NotVerifiedError: with everything that is wrong.
        UsageError: package or key cannot be read.
    """
    found = verify(folder, key)
    if not found.ok:
        raise NotVerifiedError(
            "the package did not verify; nothing of it was loaded",
            where=str(folder),
            hint="\n".join(printable(f"{finding}  {finding.remedy}") for finding in found.findings),
        )


def _device(device: str | torch.device | None) -> torch.device:
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"{device!r} is no device", hint="Give 'cpu', 'cuda' or 'cuda:0'.") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise PrerequisiteError(
            "device cuda was asked for, but torch sees no GPU",
            hint=f"torch is {torch.__version__}: install a CUDA build.",
        )
    return found


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    import torch

    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    found: Any = getattr(torch, dtype, None) if isinstance(dtype, str) and dtype in DTYPES else dtype
    if found not in {getattr(torch, name) for name in DTYPES}:
        raise UsageError(f"{dtype!r} is no dtype to generate with", hint=f"Give one of {', '.join(DTYPES)}.")
    return found  # type: ignore[no-any-return]  # one of the three
