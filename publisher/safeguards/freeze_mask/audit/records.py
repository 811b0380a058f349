"""What an audit found, as records: ``publisher audit --json`` prints exactly these. Free of times and of machines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from publisher.api.freeze_mask import Rows, Share
from publisher.api.params import Params

Verdict = Literal["complies", "does-not-comply", "undecided", "not-comparable"]
State = Literal["same", "cast", "renamed", "changed", "missing", "added", "unexamined"]
Status = Literal["equal", "cast", "changed", "renamed", "missing"]

PROVES = (
    "These tensors equal the published ones: in each weights file that was compared, everything that the mask freezes "
    "has the published bytes, or a cast of them to 16 or 8 bits, and no adapter in the upload is on a frozen layer."
)
LIMITS = (
    "It says nothing about what the model can generate: other tensors, a text encoder or embeddings can bring it back.",
    "It is about these files alone. Who ignores the mask and publishes elsewhere is not seen, and not stopped.",
)


class TensorChange(Params):
    """Difference of a tensor from the published one. Numbers have four digits."""

    relative: float | None
    """Norm of the difference, of the published tensor's norm; null where that is zero, or numbers are not finite."""
    cosine: float | None
    """Between the published numbers and these."""
    rank: int | None = None
    """Directions of the difference that stand out of rounding; at most 96 are looked at. Null: no matrix."""
    outside: float | None = None
    """Share of the difference's energy that those directions leave out."""
    low_rank: bool = False
    """Looks like an adapter of that rank merged into the weight; otherwise the whole tensor was trained."""


class FrozenVerdict(Params):
    """A tensor that was to stay, or rows of it."""

    name: str
    rows: Rows = ()
    """What of it was to stay; empty: all."""
    status: Status
    """``equal`` bit for bit, equal after a ``cast``, ``changed``, ``renamed`` (the published bytes are under another
    name), or ``missing``."""
    dtype: str = ""
    """Type in which the upload stores the tensor."""
    cast: str = ""
    """The type whose rounding explains all differences, such as ``BF16``: the upload may be stored in a wider one."""
    found_as: str = ""
    """Name of the tensor that has the published bytes, where it is not this one."""
    change: TensorChange | None = None
    reason: str = ""
    """Reason for there being no measurement, such as another shape."""

    @property
    def kept(self) -> bool:
        """Whether it is the published tensor."""
        return self.status in ("equal", "cast")


class FreeTensors(Params):
    """What fine-tuning was free to change."""

    tensors: int
    equal: int = 0
    cast: int = 0
    changed: int = 0
    missing: int = 0


class WeightsAudit(Params):
    """One complete set of weights: a file, or shards that belong together."""

    files: tuple[str, ...]
    comparable: bool = True
    reason: str = ""
    """Reason why it cannot be compared."""
    frozen: tuple[FrozenVerdict, ...] = ()
    """Every frozen tensor, by name."""
    free: FreeTensors
    dtypes: dict[str, int] = Field(default_factory=dict)
    """``F32 as BF16`` -> how many tensors are stored so."""
    unexpected: tuple[str, ...] = ()
    """Tensors that the published network does not have, other than adapters."""

    @property
    def violations(self) -> tuple[FrozenVerdict, ...]:
        """Frozen tensors that are not the published ones."""
        return tuple(verdict for verdict in self.frozen if self.comparable and not verdict.kept)


class AdapterAudit(Params):
    """Adapters in one file: LoRA and its kin, known by their names alone."""

    files: tuple[str, ...]
    layers: int
    """Layers of the denoiser that they are on."""
    frozen_layers: tuple[str, ...] = ()
    """Layers among them whose weights the mask freezes."""
    elsewhere: int = 0
    """Tensors for a text encoder."""


class ComponentAudit(Params):
    """Another part of the pipeline. Information: a mask does not speak of it."""

    name: str
    """Its folder; ``FILE: folder`` for a part inside a one-file checkpoint that lies in a folder."""
    state: State
    """``cast``: all tensors are equal after a cast. ``renamed``: all are equal, some under older names.
    ``unexamined``: its weights could not be read; the audit's list says why."""
    tensors_changed: int = 0
    tensors_renamed: int = 0
    """Equal, or equal after a cast, under the name that older versions of the libraries gave them."""
    files_changed: tuple[str, ...] = ()
    """Configuration and vocabulary; keys that begin with ``_`` do not count."""


class Unexamined(Params):
    """A file of the upload that may hold weights or code, and was not compared."""

    path: str
    reason: str


class AuditedPackage(Params):
    """What was compared with."""

    name: str
    version: str
    key_sha256: str
    """sha256 of the public key that it verified against."""
    mask_sha256: str
    """sha256 of its ``release/freeze-mask.json``."""
    component: str
    """Folder of the denoiser."""
    granularity: str
    tensors: Share
    parameters: Share


class Audit(Params):
    """The answer of ``publisher audit``."""

    audit: Literal[1] = 1
    """Version of this schema."""
    verdict: Verdict
    package: AuditedPackage
    upload: Literal["file", "pipeline", "folder"]
    weights: tuple[WeightsAudit, ...] = ()
    adapters: tuple[AdapterAudit, ...] = ()
    components: tuple[ComponentAudit, ...] = ()
    unexamined: tuple[Unexamined, ...] = ()
    """Not empty: the verdict cannot be ``complies``."""
    aside: tuple[Unexamined, ...] = ()
    """What no pipeline loads: states of a training, known by name and content, and the store of git."""
    proves: str = PROVES
    """What the verdict ``complies`` says."""
    limits: tuple[str, ...] = LIMITS
    """What it does not."""


def verdict_of(
    weights: tuple[WeightsAudit, ...], adapters: tuple[AdapterAudit, ...], unexamined: tuple[Unexamined, ...]
) -> Verdict:
    """Decide: a violation first, then what could not be examined; without a comparison there is no answer."""
    if any(one.violations for one in weights) or any(one.frozen_layers for one in adapters):
        return "does-not-comply"
    if unexamined:
        return "undecided"
    compared = [one.comparable for one in weights] + [True for one in adapters if one.layers]
    if not any(compared):
        return "not-comparable"
    return "complies" if all(compared) else "undecided"
