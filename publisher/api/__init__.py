"""Everything that a plugin may import. Importing it imports no torch."""

from __future__ import annotations

from publisher.api.artifacts import safetensors_bytes
from publisher.api.attacks import Attack, ImageRequest, Sampling
from publisher.api.claims import Binding, Check, Claim, Gate, Guards, Verdict
from publisher.api.concepts import Concept, Kind, Scope
from publisher.api.events import CheckEnd, PackageBuilt, ReleaseEnd, ReleaseStart, StepEnd, StepStart
from publisher.api.hookspecs import hookimpl, hookspec
from publisher.api.metrics import Interval, Measurement, Metric, Observation
from publisher.api.models import Anatomy, Model, ModelInfo, StepPlan, TensorInfo, TextEncoder
from publisher.api.params import Params
from publisher.api.records import (
    CheckRecord,
    ClaimRecord,
    Curve,
    ImagePair,
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
from publisher.api.steps import NoParams, Requirements, Step, StepContext
from publisher.api.world import Executor, ModelFamily, ModelSource, ReportFormat
from publisher.errors import ModelError, PluginError, PrerequisiteError, PublisherError, UsageError

__all__ = [
    "Anatomy", "Attack", "Binding", "Check", "CheckEnd", "CheckRecord", "Claim", "ClaimRecord", "Concept", "Curve",
    "Executor", "Gate", "Guards", "ImagePair", "ImageRequest", "Interval", "Judgement", "Kind", "MatrixCell",
    "Measurement", "Metric", "Model", "ModelError", "ModelFamily", "ModelInfo", "ModelRecord", "ModelSource",
    "NoParams", "Number", "Observation", "Origin", "PackageBuilt", "Params", "PermeabilityRow", "PermeabilityTable",
    "PluginError", "PluginRecord", "PrerequisiteError", "PublisherError", "ReleaseEnd", "ReleaseReport",
    "ReleaseStart", "ReportFormat", "Requirements", "Sampling", "Scope", "Scorer", "ScorerCard", "Step",
    "StepContext", "StepEnd", "StepPlan", "StepRecord", "StepStart", "TensorInfo", "TextEncoder", "UsageError",
    "Verdict", "hookimpl", "hookspec", "safetensors_bytes",
]  # fmt: skip
