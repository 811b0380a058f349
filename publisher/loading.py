"""Load a released package for use: verified first, with its membranes attached and opened by the prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api.membranes import Transport
from publisher.errors import ExitCode, PrerequisiteError, PublisherError, UsageError
from publisher.hub.fetch import Located, locate
from publisher.model.folder import read_configs
from publisher.package.layout import RELEASE
from publisher.package.verify import Verification, verify
from publisher.registry import load_registry
from publisher.runtime.pipelines import load as load_pipeline
from publisher.safeguards import attach
from publisher.text import printable

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from publisher.package.dsse import Anchor

DTYPES = ("float32", "float16", "bfloat16")


class NotVerifiedError(PublisherError):
    """The package is not what its publisher signed; nothing of it was loaded."""

    exit_code = ExitCode.REFUSED


def load(
    package: str | Path,
    *,
    verify_key: str | Path | Anchor | None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    transport: Transport | None = None,
) -> DiffusionPipeline:
    """Load a released package as a diffusers pipeline, as its publisher means it to be used.

    Its membranes are attached and open by the prompt, and a safety checker that it brings is kept. The attribute
    ``membranes`` of the pipeline is what was attached, or None
    (:class:`publisher.safeguards.membranes.attached.Attached`).

    Args:
        package: folder of the package, also as a hub's client has downloaded it; or ``hf:org/name@`` and a tag or a
            commit, which is fetched. What was verified is what is loaded.
        verify_key: the publisher's public key in PEM, or what :func:`publisher.trust` returns; from the publisher and
            never from the package. None loads without any check: only for files that you made yourself.
        device: default: a GPU if torch sees one, else the CPU.
        dtype: of all weights; default: float32 on the CPU, bfloat16 elsewhere.
        transport: how prompts open the membranes; default: as the package says, which is what was tested.

    Raises:
        NotVerifiedError: with everything that is wrong.
        ModelError: the model or a membrane cannot be loaded, or they do not fit together.
        UsageError: package or key cannot be read; an unknown device or dtype; a package of the hub without a key.
        PrerequisiteError: a GPU was asked for and there is none.
        HubUnreachableError: a package of the hub is not in the cache, and cannot be fetched.
    """
    folder = verified(package, verify_key)
    where = _device(device)
    _, anatomy = load_registry().recognise(read_configs(folder), str(folder))
    pipeline = load_pipeline(folder, anatomy, where, _dtype(dtype, where), filters=True)
    attached = attach(pipeline, folder / RELEASE, transport)
    pipeline.membranes = attached[0] if attached else None
    return pipeline


def verified(package: str | Path, key: str | Path | Anchor | None) -> Path:
    """Return the folder of a package that is what its publisher signed.

    Args:
        package: a folder, or a package's name on the hub, which is fetched.
        key: the publisher's public key in PEM; None: a folder is not verified.

    Raises:
        NotVerifiedError: with everything that is wrong.
        UsageError: package or key cannot be read; a package of the hub without a key.
    """
    found = locate(package)
    if key is not None:
        require_verified(found, Path(key) if isinstance(key, str) else key, "nothing of it was loaded")
    elif found.repository:
        raise UsageError(
            "a package of the hub is not used without its publisher's key",
            where=str(found),
            hint="Give verify_key; None is for files that you made yourself.",
        )
    return found.path


def require_verified(package: Located, key: Path | Anchor, so: str) -> Verification:
    """Refuse a package that is not what its publisher signed.

    Args:
        package: where it lies.
        key: the publisher's public key in PEM.
        so: what was not done because of that.

    Raises:
        NotVerifiedError: with everything that is wrong.
        UsageError: package or key cannot be read.
    """
    found = verify(package.path, key)
    if not found.ok:
        raise NotVerifiedError(
            f"the package did not verify; {so}",
            where=str(package),
            hint="\n".join(printable(f"{finding}  {finding.remedy}") for finding in found.findings),
        )
    return found


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
