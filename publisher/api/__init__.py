"""Everything that a plugin may import. Importing it imports no torch."""

from __future__ import annotations

from publisher.api.artifacts import safetensors_bytes
from publisher.api.attacks import Access, Attack, ImageRequest, Sampling
from publisher.api.calibration import ScorerErrors, Tally
from publisher.api.claims import Binding, Check, Claim, Gate, MembraneUse, Verdict
from publisher.api.concepts import Concept, Kind, Scope
from publisher.api.descent import DescentAttack, DescentParams, PriorParams, TrialStart
from publisher.api.events import CheckEnd, PackageBuilt, ReleaseEnd, ReleaseStart, StepEnd, StepStart
from publisher.api.families import (
    Anatomy,
    Capability,
    Latents,
    ModelFamily,
    Prediction,
    TextEncoder,
    denoiser_of,
)
from publisher.api.freeze_mask import Frozen
from publisher.api.hookspecs import hookimpl, hookspec
from publisher.api.metrics import CurveMetric, Interval, Measurement, Metric, Observation, PixelPair, Request
from publisher.api.models import Credit, Model, ModelInfo, StepPlan, TensorInfo, cross_attention
from publisher.api.params import Params
from publisher.api.records import (
    CheckRecord,
    ClaimRecord,
    Curve,
    GoneConcept,
    ImagePair,
    MaskRecord,
    MatrixCell,
    ModelRecord,
    Number,
    Origin,
    PermeabilityRow,
    PermeabilityTable,
    PluginRecord,
    ReleaseReport,
    StepRecord,
)
from publisher.api.scorers import Judgement, Scorer, ScorerCard
from publisher.api.steps import Configured, NoParams, References, Requirements, Step, StepContext
from publisher.api.training import Captions, Learner, TrainingAttack, TrainingData, TrainingParams, Trial, WeightAttack
from publisher.api.world import Executor, ModelDefaults, ModelSource, ReportFormat, Task
from publisher.errors import ModelError, PluginError, PrerequisiteError, PublisherError, UsageError

__all__ = [
    "Access",
    "Anatomy",
    "Attack",
    "Binding",
    "Capability",
    "Captions",
    "Check",
    "CheckEnd",
    "CheckRecord",
    "Claim",
    "ClaimRecord",
    "Concept",
    "Configured",
    "Credit",
    "Curve",
    "CurveMetric",
    "DescentAttack",
    "DescentParams",
    "Executor",
    "Frozen",
    "Gate",
    "GoneConcept",
    "ImagePair",
    "ImageRequest",
    "Interval",
    "Judgement",
    "Kind",
    "Latents",
    "Learner",
    "MaskRecord",
    "MatrixCell",
    "Measurement",
    "MembraneUse",
    "Metric",
    "Model",
    "ModelDefaults",
    "ModelError",
    "ModelFamily",
    "ModelInfo",
    "ModelRecord",
    "ModelSource",
    "NoParams",
    "Number",
    "Observation",
    "Origin",
    "PackageBuilt",
    "Params",
    "PermeabilityRow",
    "PermeabilityTable",
    "PixelPair",
    "PluginError",
    "PluginRecord",
    "Prediction",
    "PrerequisiteError",
    "PriorParams",
    "PublisherError",
    "References",
    "ReleaseEnd",
    "ReleaseReport",
    "ReleaseStart",
    "ReportFormat",
    "Request",
    "Requirements",
    "Sampling",
    "Scope",
    "Scorer",
    "ScorerCard",
    "ScorerErrors",
    "Step",
    "StepContext",
    "StepEnd",
    "StepPlan",
    "StepRecord",
    "StepStart",
    "Tally",
    "Task",
    "TensorInfo",
    "TextEncoder",
    "TrainingAttack",
    "TrainingData",
    "TrainingParams",
    "Trial",
    "TrialStart",
    "UsageError",
    "Verdict",
    "WeightAttack",
    "cross_attention",
    "denoiser_of",
    "hookimpl",
    "hookspec",
    "safetensors_bytes",
]
