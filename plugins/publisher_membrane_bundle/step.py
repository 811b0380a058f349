"""The step ``membrane-bundle``: membranes trained or reused, then put beside the weights or into them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

from publisher.api import Claim, Concept, ModelInfo, Requirements, Scope, Step, StepContext, StepPlan
from publisher.api.diffusion.process import require_trainable
from publisher.api.membranes import (
    FOLDER,
    INDEX,
    PREFIX,
    Host,
    Membrane,
    MembraneEntry,
    MembraneIndex,
    find_hosts,
    membrane_bytes,
    of_transformer,
    parse_membrane_bytes,
    read_sizes,
    require_fit,
    weight_change,
)
from publisher_membrane_bundle.claims import membrane_claims
from publisher_membrane_bundle.params import MembraneParams
from publisher_membrane_bundle.plan import choose, notes, require_drawn, require_trainer, targets, texts_of
from publisher_membrane_bundle.presets import resolve

NOT_TRAINING = (
    "aliases",
    "concepts",
    "dtype",
    "from",
    "mode",
    "permeability",
    "positives",
    "preset",
    "surrogates",
    "transport",
)
"""Parameters that the trained factors do not depend on, or that the target says."""


class MembraneBundle(Step[MembraneParams]):
    """SPM membranes: a rank-1 side branch a layer for each concept, opened by the prompt or merged into the weights."""

    name = "membrane-bundle"
    version = "1"
    summary = "SPM membranes: concept erasure as data beside untouched weights, or merged"
    requires = Requirements(needs=("membranes",))

    def inputs(self, params: MembraneParams) -> Sequence[str]:
        """Return the membrane files under ``from``."""
        return tuple(dict.fromkeys(params.reuse.values()))

    def decide(self, params: MembraneParams, scope: Scope, model: ModelInfo) -> MembraneParams:
        """Take from the preset, and from the words of what stays, what the manifest leaves open.

        Raises:
            ModelError: the text encoder's files cannot be read.
            UsageError: no concept, or a name that is none.
        """
        return resolve(params, scope, model)

    def claims(self, params: MembraneParams, scope: Scope) -> Sequence[Claim]:
        """Promise: not from prompts nor synonyms, kept concepts intact and near; state the row without membranes."""
        return membrane_claims(choose(params, scope), scope, params)

    def plan(self, params: MembraneParams, scope: Scope, model: ModelInfo) -> StepPlan:
        """Name the files of membranes, with ``merge`` also the weights they change; check the shape of files to reuse.

        Raises:
            ModelError: the denoiser's layers are not those of its architecture, a file does not fit them, or the model
                was trained in a way that is not known here.
            UsageError: no concept, a name that is none, a text that is its own surrogate, or what holds for other
                models alone: the authors' own trainer, opening by what is predicted.
        """
        params = self.decide(params, scope, model)
        chosen = choose(params, scope)
        wanted = targets(params, chosen)
        hosts = find_hosts(model)
        require_drawn(params, model)
        if wanted:
            require_trainable(model)
            require_trainer(params, model)
        stems = set(hosts) if wanted else set()
        for name in self.inputs(params):
            sizes = read_sizes(self.files[name])
            require_fit(sizes, hosts, name)
            stems |= set(sizes)
        changed = sorted(f"{hosts[stem].module}.weight" for stem in stems) if params.mode == "merge" else []
        return StepPlan(
            changes={model.anatomy.denoiser: changed} if changed else {},
            artifacts=(INDEX, *(f"{FOLDER}/{_file(concept)}" for concept in chosen)),
            notes=notes(params, chosen),
        )

    def run(self, params: MembraneParams, ctx: StepContext) -> None:
        """Train what is not reused, write the files and their index, and merge where that is asked for.

        Raises:
            ModelError: a layer or a file that does not fit.
            UsageError: texts that are too long or contradict each other.
        """
        params = self.decide(params, ctx.scope, ctx.model)
        chosen = choose(params, ctx.scope)
        hosts = find_hosts(ctx.model)
        files = {concept: self.files[name].read_bytes() for concept, name in params.reuse.items()}
        for concept, data in files.items():
            membrane = parse_membrane_bytes(data, params.reuse[concept])
            require_fit(membrane, hosts, params.reuse[concept])
            if of_transformer(membrane) and PREFIX.encode() in data:  # kohya's names of FLUX.1
                files[concept] = membrane_bytes(membrane)
        files |= _trained(params, ctx, chosen)
        # What is served and merged is what the files hold.
        membranes = {one.id: parse_membrane_bytes(files[one.id], _file(one)) for one in chosen}
        for one in chosen:
            ctx.artifact(f"{FOLDER}/{_file(one)}", files[one.id])
        ctx.artifact(INDEX, _index(params, chosen, files, membranes))
        if params.mode == "merge":
            _merge(params, ctx, hosts, membranes)
        ctx.record("membranes", len(chosen))
        ctx.record("layers", len(hosts))
        ctx.record("parameters of all membranes", sum(membrane.parameters for membrane in membranes.values()))


def _file(concept: Concept) -> str:
    return f"{concept.id}.safetensors"


def _words(params: MembraneParams, concept: Concept) -> tuple[str, ...]:
    return (concept.name, *params.aliases.get(concept.id, ()))


def _described(membrane: Membrane, concept: Concept, params: MembraneParams, ctx: StepContext) -> Membrane:
    """Return the membrane with metadata that says what it was trained on and how."""
    (target,) = targets(params, [concept])
    how = {name: value for name, value in params.as_json().items() if name not in NOT_TRAINING}
    recipe = json.dumps([how, dataclasses.asdict(target)], sort_keys=True)
    metadata = {
        "base_model": ctx.model.digest,
        "family": ctx.model.anatomy.family,
        "trainer": params.trainer,
        "training_sha256": hashlib.sha256(recipe.encode()).hexdigest(),
    }
    return Membrane(membrane.branches, _words(params, concept), metadata)


def _trained(params: MembraneParams, ctx: StepContext, chosen: Sequence[Concept]) -> dict[str, bytes]:
    """Train membranes, and return their files by concept; nothing for those that are reused."""
    wanted = targets(params, chosen)
    if not wanted:
        return {}
    import torch

    from publisher_membrane_bundle.train import Session, train

    keep = [prompt for concept in ctx.scope.keep for prompt in concept.prompts]
    session = Session(ctx.device, ctx.dtype, ctx.generator, ctx.scratch, ctx.progress)
    trained = train(ctx.model, wanted, tuple(dict.fromkeys((*keep, *ctx.scope.keep_prompts))), params, session)
    for warning in trained.warnings:
        ctx.warn(warning)
    for name, value, unit in trained.numbers:
        ctx.record(name, value, unit)
    for name, x, y, unit in trained.curves:
        ctx.curve(name, x, y, unit)
    named = {concept.id: concept for concept in chosen}
    return {
        name: membrane_bytes(_described(membrane, named[name], params, ctx), getattr(torch, params.dtype))
        for name, membrane in trained.membranes.items()
    }


def _index(
    params: MembraneParams, chosen: Sequence[Concept], files: Mapping[str, bytes], membranes: Mapping[str, Membrane]
) -> bytes:
    entries = tuple(
        MembraneEntry(
            concept=concept.id,
            file=_file(concept),
            sha256=hashlib.sha256(files[concept.id]).hexdigest(),
            words=_words(params, concept),
            texts=texts_of(params, concept),
            rank=membranes[concept.id].rank,
            trained_on=membranes[concept.id].metadata.get("base_model", ""),
        )
        for concept in chosen
    )
    return MembraneIndex(mode=params.mode, transport=params.transport, entries=entries).as_file()


def _merge(
    params: MembraneParams, ctx: StepContext, hosts: Mapping[str, Host], membranes: Mapping[str, Membrane]
) -> None:
    """Write ``W + gamma sum_c s_c up_c down_c`` for every host, in float64."""
    component = ctx.model.anatomy.denoiser
    stems = sorted({stem for membrane in membranes.values() for stem in membrane.branches})
    for done, stem in enumerate(stems):
        name = f"{hosts[stem].module}.weight"
        weight = ctx.model.read(component, name)
        branches = [(params.permeability, m.branches[stem]) for m in membranes.values() if stem in m.branches]
        merged = weight.double() + weight_change(branches, weight.shape)
        ctx.write(component, name, merged.to(weight.dtype))
        ctx.progress(done + 1, len(stems), "merging")
