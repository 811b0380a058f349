"""A toy step on a toy model."""

from __future__ import annotations

import torch
from pydantic import Field

from publisher import api

KEY = "attn2.to_k.weight"
ORIGIN = api.Origin(distribution="toys", version="1", module="toys:Add")
CONCEPT = api.Concept(id="gun", name="gun", prompts=("a gun",), label="gun")


class AddParams(api.Params):
    """Parameters of the toy."""

    by: float = Field(default=1.0)
    """What to add."""


class Add(api.Step[AddParams]):
    """Adds a number to one matrix; counts how often it ran."""

    name, version = "add", "1"
    runs = 0

    def claims(self, params: AddParams, scope: api.Scope) -> list[api.Claim]:
        check = api.Check(
            id="plain", attack="plain", metric="rate", concepts=("gun",), gate=api.Gate(upper_at_most=0.1)
        )
        return [api.Claim(id="gone", sentence="gone", binds="in-weights", checks=(check,))]

    def plan(self, params: AddParams, scope: api.Scope, model: api.ModelInfo) -> api.StepPlan:
        return api.StepPlan({"unet": [KEY]}, ("made.json",))

    def run(self, params: AddParams, ctx: api.StepContext) -> None:
        type(self).runs += 1
        noise = torch.rand(4, 4, generator=ctx.generator("noise"))
        ctx.write("unet", KEY, ctx.model.read("unet", KEY) + params.by + noise)
        ctx.artifact("made.json", b"{}")
        ctx.record("residual", 0.5)
        ctx.progress(1, 1)
