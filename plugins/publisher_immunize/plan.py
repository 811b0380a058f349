"""What the step is going to do: which concepts, which tensors, and what the user should know. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from publisher.api import Anatomy, Concept, ModelError, ModelInfo, Scope, UsageError, cross_attention
from publisher.api.choosing import kept_notes, named, require_apart, spread
from publisher_immunize.params import ImmunizeParams, Outer

JOINT = "keys and values in blocks that read image and text together depend on both, so no text says what they become"


def choose(params: ImmunizeParams, scope: Scope) -> tuple[Concept, ...]:
    """Choose the concepts to immunise against, in the manifest's order.

    Raises:
        UsageError: none, or a name that the manifest's concepts to go do not have.
    """
    chosen = named("concepts", params.concepts, scope.concepts) if params.concepts else scope.concepts
    if not chosen:
        raise UsageError("there is no concept to immunise against", hint="Name at least one under 'concepts'.")
    return chosen


def choose_kept(params: ImmunizeParams, scope: Scope) -> tuple[Concept, ...]:
    """Choose the kept concepts that give images, spread evenly.

    Raises:
        UsageError: there is none, and a term of the objective needs some; or a prompt to keep, which such a term or the
            merge holds, calls a concept by its name or a synonym.
    """
    held = bool(params.prior + params.lam + params.mu) or "dreambooth" in params.inners
    if held and not scope.keep:
        raise UsageError(
            "there is nothing to keep, so nothing would protect the rest of the model",
            hint="List concepts under 'keep'; or set prior, lam and mu to 0, and see what is left of the model.",
        )
    if held or params.method == "mima":
        require_apart(choose(params, scope), kept_prompts(scope))
    return spread(scope.keep, params.keep_concepts)


def kept_prompts(scope: Scope) -> tuple[str, ...]:
    """Return all prompts to keep, each once, in the manifest's order."""
    return tuple(
        dict.fromkeys((*(prompt for concept in scope.keep for prompt in concept.prompts), *scope.keep_prompts))
    )


def notes(params: ImmunizeParams, chosen: Sequence[Concept], scope: Scope) -> tuple[str, ...]:
    """Return what the user should know before the run. The parameters have to be decided."""
    size = f"{params.batch} images of each of {len(chosen)} concepts"
    rates = ", ".join(f"{kind} {params.rate(kind):g}" for kind in params.inners)
    found = [f"{params.steps} outer steps of {params.inner_steps} inner; {size}; lr {params.lr:g}, inner: {rates}"]
    if params.objective == "ascend" and params.strength and params.bound is None:
        found.append("objective ascend is without bound: long runs destroy the model; set bound, or take hold")
    if params.outer == "denoiser" and params.preset == "large":
        found.append("outer denoiser was never tried on a model of this size: its rates and steps are starting points")
    if not isinstance(params.rare, int) and "sks" in params.rare:
        found.append("'sks' is what attacks use as their rare word: a test with it would say nothing about others")
    return (*found, *kept_notes(chosen, kept_prompts(scope)))


def merges(anatomy: Anatomy) -> bool:
    """Return whether keys and values read the text as its encoders write it, and so can be merged in closed form."""
    return {"cross-attention", "clip-text"} <= anatomy.capabilities


def in_set(names: Iterable[str], kind: Outer, anatomy: Anatomy) -> list[str]:
    """Return those of ``names`` that belong to a set of tensors, sorted."""
    if kind == "denoiser":
        return sorted(set(names) - set(anatomy.constants))
    if kind == "attention":
        return anatomy.projections(names)
    if not anatomy.cross_attention:
        return []
    layers = (anatomy.cross_attention,)
    if kind == "cross-attention":
        return anatomy.projections(names, layers)
    return [name for name in anatomy.projections(names, layers, ("to_k", "to_v")) if name.endswith(".weight")]


def require_possible(params: ImmunizeParams, anatomy: Anatomy) -> None:
    """Refuse what the parameters ask for and a model of this family has not.

    Args:
        params: parameters with every None replaced.
        anatomy: of the model.

    Raises:
        ModelError: with what there is instead.
    """
    family = f"the family {anatomy.family}"
    if not anatomy.cross_attention and not anatomy.attention:
        raise ModelError(f"immunize moves attention, and {family} names no attention layers", where=anatomy.denoiser)
    if params.method == "mima" and not merges(anatomy):
        why = "its cross-attention does not read what the text encoders write" if anatomy.cross_attention else JOINT
        raise ModelError(
            f"the method mima merges keys and values by the text that they read, and in {family} there are no such "
            f"ones: {why}",
            where="immunize",
            hint="Set method to imma: it merges nothing, each concept sees its own adapted copy.",
        )
    asked = [f"outer {params.outer}"] if params.outer in ("cross-attention-kv", "cross-attention") else []
    asked += ["inner cross-attention"] if "cross-attention" in params.inners else []
    if asked and not anatomy.cross_attention:
        raise ModelError(
            f"{' and '.join(asked)}: {family} has no cross-attention that reads the text alone",
            where="immunize",
            hint="Set outer to attention, and inner to lora or full.",
        )
    if "lora" in params.inners and not anatomy.lora_targets:
        raise ModelError(f"inner lora: {family} names no layers that adapters sit on", where="immunize")
    if "textual-inversion" in params.inners and "clip-text" not in anatomy.capabilities:
        raise ModelError(
            f"inner textual-inversion: {family} has other text encoders than CLIP, whose first state is no start token",
            where="immunize",
            hint="Leave it out: the attack of that name does not run on this family either.",
        )


def exported(model: ModelInfo, kind: Outer) -> list[str]:
    """Return the names of the denoiser's tensors that are trained and written.

    Raises:
        ModelError: cross-attention or attention is not where the family has it.
    """
    anatomy = model.anatomy
    if anatomy.cross_attention:
        cross_attention(model)
    names = in_set(model.tensors(anatomy.denoiser), kind, anatomy)
    if not names:
        raise ModelError(
            f"no tensor belongs to outer {kind}, where the family {anatomy.family} has its attention",
            where=anatomy.denoiser,
            hint="The layers may be wrapped by an adapter, or fused; save the plain model.",
        )
    return names
