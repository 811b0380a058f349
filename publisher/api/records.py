"""The release report: the record that every other form of the report is a view of."""

from __future__ import annotations

from collections.abc import Sized
from typing import Annotated, Any, Literal

from pydantic import Field

from publisher.api.attacks import Access
from publisher.api.claims import Binding, Gate, MembraneUse, Verdict
from publisher.api.concepts import Kind
from publisher.api.finds import Search
from publisher.api.freeze_mask import FreezeMask, Share, count, jaccard
from publisher.api.metrics import Interval, Measurement
from publisher.api.models import Credit
from publisher.api.params import Params
from publisher.api.scorers import ScorerCard
from publisher.api.training import Trial


def _absent(value: object) -> bool:
    return value is None


def _false(value: object) -> bool:
    return value is False


def _none(values: Sized) -> bool:
    return not values


Control = Literal["base", "retrained", "kept before", "kept"]


class Origin(Params):
    """Where a plugin's class comes from."""

    distribution: str
    """Name of the installed distribution, or the module's file where it belongs to none."""
    version: str
    """Of the distribution."""
    module: str
    """Module and class, ``"publisher_erase.step:Erase"``."""
    digest: str = ""
    """sha256 over the plugin package's source files."""


class PluginRecord(Params):
    """One plugin class that took part."""

    kind: str
    """``step``, ``attack``, ``scorer``, ``metric``, ``family``, ``source``, ``executor`` or ``report_format``."""
    name: str
    version: str
    origin: Origin


class ModelRecord(Params):
    """The base model."""

    source: str
    """As the manifest names it."""
    family: str
    digest: str
    """sha256 over the sorted list of its files' digests."""
    parameters: int
    """Of all components together."""
    bytes: int
    license: str = ""


class Number(Params):
    """A figure that a step recorded about itself: *self-assessed*, never a verdict."""

    name: str
    value: float
    unit: str = ""


class Curve(Params):
    """A curve that a step recorded about itself, such as its loss: *self-assessed*, never a verdict."""

    name: str
    x: tuple[float, ...]
    """Ascending, such as training steps."""
    y: tuple[float, ...]
    unit: str = ""
    """Of ``y``."""


class StepRecord(Params):
    """One step that ran."""

    id: str
    """Id in the manifest; default: the step's name."""
    name: str
    version: str
    summary: str = ""
    """Purpose of the step in one line, in its plugin's words."""
    origin: Origin
    params: dict[str, Any]
    """Parameters with defaults written out, and everything decided that the manifest left to the step."""
    input: str
    """Digest of the state before."""
    output: str
    """Digest of the state after."""
    changed: dict[str, int]
    """Component -> number of tensors that changed."""
    changed_parameters: int
    artifacts: tuple[str, ...] = ()
    inputs: dict[str, str] = Field(default_factory=dict)
    """File or folder that the parameters name -> its sha256."""
    credits: tuple[Credit, ...] = ()
    """Work of others that the result rests on."""
    numbers: tuple[Number, ...] = ()
    curves: tuple[Curve, ...] = ()
    warnings: tuple[str, ...] = ()


class WaiverRecord(Params):
    """A policy's exception for one check. It takes back nothing: the check keeps its verdict."""

    reason: str
    approver: str
    """Person or board that answers for it."""
    expires: str
    """Last day on which it counts, such as ``2026-12-31``."""

    def sentence(self) -> str:
        """Return the exception in words: ``"WAIVED until 2026-12-31 by release-board: ticket 123"``."""
        return f"WAIVED until {self.expires} by {self.approver}: {self.reason}"


class PolicyRecord(Params):
    """An organisation's minimum that a release was held to besides its own gates."""

    name: str
    """Name of the policy's file."""
    sha256: str
    """Of the policy as it was written."""
    breaches: tuple[str, ...] = ()
    """What it asks for and did not get, each with file, line and column. With any the release is refused."""


class CheckRecord(Params):
    """One check that was made, or could not be."""

    id: str
    attack: str
    attack_params: dict[str, Any]
    access: Access | None = None
    """What the attacker needs to have. None: nobody knows the attack, or the report is older than this field."""
    scorer: str
    """Ids of the scorers that judged, joined by a comma and a blank where there are several; empty: nobody judged."""
    metric: str
    metric_params: dict[str, Any]
    unit: str
    better: Literal["lower", "higher"]
    concept_figure: str = ""
    """What the numbers of single concepts are; empty: the check's number once more, of that concept."""
    concept_unit: str = ""
    """Unit of the numbers of single concepts; empty: the same."""
    resistance: bool = False
    """Whether a better number says that the concepts are harder to get; see :attr:`publisher.api.Metric.resistance`."""
    concepts: tuple[str, ...]
    gate: Gate | None
    """None: the number is reported, and promises nothing."""
    membranes: MembraneUse = "on"
    """Whether the package's membranes were attached."""
    verdict: Verdict
    reason: str
    """Why this verdict, in one sentence."""
    measurement: Measurement | None = None
    """None when nothing could be measured: the verdict is then *unknown*."""
    trials: tuple[Trial, ...] = ()
    """Of an attack by training: every trial on every model, for the curves."""
    searches: tuple[Search, ...] = Field(default=(), exclude_if=_none)
    """Of an attack that searches: every search on every model; not there: it is another attack."""
    evidence: str = ""
    """File of the evidence inside ``release/reports/``, one JSON line an image."""
    evidence_sha256: str = ""
    controls: dict[Control, Interval] = Field(default_factory=dict, exclude_if=_none)
    """Of an attack on weights: the check's number on other models that were altered in the same way, ``base`` and
    ``retrained``; and the share of images of kept concepts that show them, ``kept before`` and ``kept``."""
    waiver: WaiverRecord | None = Field(default=None, exclude_if=_absent)
    """An exception to the policy; not there: none. The attestation then says *warned* where it would say *passed*."""

    @property
    def attached(self) -> bool:
        """Whether the package's safeguards were attached when images were generated."""
        return self.membranes == "on"


class ClaimRecord(Params):
    """One claim with its verdict: the worst of its checks'; without checks *unknown*."""

    id: str
    steps: tuple[str, ...] = Field(min_length=1)
    """Ids of the steps that make it."""
    sentence: str
    binds: Binding
    """Of several steps' the weakest."""
    limits: tuple[str, ...]
    verdict: Verdict
    checks: tuple[CheckRecord, ...]
    discloses: bool = Field(default=False, exclude_if=_false)
    """True: it promises nothing, and *unknown* checks of it that have no gate count as *reported*."""
    deletes: tuple[str, ...] = Field(default=(), exclude_if=_none)
    """Ids of concepts whose training data is out of the weights exactly, where the claim passes; not there: none."""


class MatrixCell(Params):
    """A claim's verdict after a step: a later step can undo an earlier claim."""

    claim: str
    after: str
    """Id of the step after which it was measured; ``"base"`` before all."""
    verdict: Verdict
    value: float | None = None
    """Of the claim's worst check."""


class ImagePair(Params):
    """The base model's and the hardened model's image of one request. Never of a person or of unsafe kind.

    Where the request was generated without membranes too, that image is the third.
    """

    concept: str
    check: str
    prompt: str
    seed: int
    base_png: str
    """Base64."""
    hardened_png: str
    """Base64."""
    base_label: str
    hardened_label: str
    membranes: MembraneUse = "on"
    """How the hardened image was generated: with the package's membranes, or without them."""
    without_png: str = ""
    """Base64; generated by the hardened model without membranes, where the hardened image has them. Empty: none."""
    without_label: str = ""


class PermeabilityRow(Params):
    """How far the membranes open for one prompt."""

    concept: str
    """Id of the concept that the prompt asks for; empty: none."""
    prompt: str
    kept: bool
    """The concept is to stay: the membranes should stay shut."""
    permeability: tuple[float, ...]
    """One for each membrane, in the table's order."""


class PermeabilityTable(Params):
    """Prompts by membranes: what every prompt of the checks opens. The report shows the rows that tell most."""

    membranes: tuple[str, ...]
    """Ids of the concepts that have one."""
    rows: tuple[PermeabilityRow, ...]
    prompts: int
    """Distinct prompts that were scored; ``rows`` may be a selection."""


LARGEST = 10
"""Frozen tensors that a report names."""


class FrozenSize(Params):
    """A frozen tensor and how much of it stays."""

    name: str
    frozen: int = Field(ge=0)
    """Parameters."""
    total: int = Field(ge=0)
    """Parameters of the whole tensor."""


class MaskRecord(Params):
    """What the package's freeze mask freezes."""

    component: str
    granularity: str
    """What is frozen as one: a tensor, the rows of a head, a row."""
    tensors: Share
    """Frozen tensors, in part or in full."""
    parameters: Share
    largest: tuple[FrozenSize, ...]
    """The tensors of which most stays."""
    others: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """Mask to compare with -> Jaccard index with this one, counted in parameters."""

    @classmethod
    def of(cls, mask: FreezeMask) -> MaskRecord:
        """Return the summary of a mask."""
        others = {name: round(jaccard(mask.rows, rows, mask.candidates), 6) for name, rows in mask.others.items()}
        return cls(
            component=mask.component,
            granularity=mask.granularity,
            tensors=mask.tensors,
            parameters=mask.parameters,
            largest=_largest(mask),
            others=others,
        )

    def describes(self, mask: FreezeMask) -> bool:
        """Tell whether this is the summary of a mask that nobody vouches for.

        Jaccard indices are not computed again: a hostile mask could make that expensive.
        """
        ours = (self.component, self.granularity, self.tensors, self.parameters, self.largest, set(self.others))
        return ours == (
            mask.component,
            mask.granularity,
            mask.tensors,
            mask.parameters,
            _largest(mask),
            set(mask.others),
        )


def _largest(mask: FreezeMask) -> tuple[FrozenSize, ...]:
    sizes = [
        FrozenSize(name=name, frozen=count({name: rows}, mask.candidates), total=mask.candidates[name].parameters)
        for name, rows in mask.rows.items()
    ]
    return tuple(sorted(sizes, key=lambda size: (-size.frozen, size.name))[:LARGEST])


class GoneConcept(Params):
    """A concept that was to go."""

    id: str
    name: str
    """Words for it in a prompt."""
    kind: Kind
    synonyms: tuple[str, ...] = ()
    """Other words for it."""
    hazard: str = ""
    """Hazard that it belongs to, in the words of a taxonomy; empty: none was named."""


class PublisherRecord(Params):
    """Who publishes the model, and for what."""

    provider: str = ""
    """Legal name."""
    contact: str = ""
    """Where to write."""
    acceptable_use: str = ""
    """What the model may be used for, or the address of a policy."""


class ReleaseReport(Params):
    """Everything that a reader needs to judge a release. No times, no paths: the same release gives the same bytes."""

    report: Literal[1] = 1
    """Version of this schema."""
    name: str
    version: str
    license: str
    publisher: PublisherRecord = PublisherRecord()
    """Who publishes it; what the manifest does not say is empty."""
    decision: Verdict
    """The worst verdict of all claims."""
    model: ModelRecord
    """The base model."""
    tested: ModelRecord | None = None
    """A model that was tested as it is, against the base model: nothing was hardened, packaged or signed. None: this is
    the report of a release."""
    files: dict[str, str] = Field(default_factory=dict)
    """Path in the package -> sha256 of what was judged: weights, configurations, and what steps left (membranes,
    freeze mask). Each check names its evidence."""
    concepts: tuple[GoneConcept, ...] = ()
    """Concepts that were to go, in the manifest's order, checked or not. Reports that are older than this field have
    none."""
    steps: tuple[StepRecord, ...]
    claims: tuple[ClaimRecord, ...]
    matrix: tuple[MatrixCell, ...] = ()
    scorers: dict[str, ScorerCard] = Field(default_factory=dict)
    plugins: tuple[PluginRecord, ...] = ()
    pairs: tuple[ImagePair, ...] = ()
    permeabilities: PermeabilityTable | None = None
    """None: no membrane opens by the prompt."""
    freeze_mask: MaskRecord | None = None
    """None: the package has none."""
    seed: int
    device: str
    """Device class and dtype, such as ``"cpu float32"``."""
    versions: dict[str, str]
    """Of python, torch, diffusers, transformers, safetensors and publisher."""
    manifest_sha256: str
    """Of the manifest as it was written."""
    limits: tuple[str, ...] = ()
    """What the release as a whole does not prove."""
    policy: PolicyRecord | None = Field(default=None, exclude_if=_absent)
    """The policy that the release was held to; not there: none."""
