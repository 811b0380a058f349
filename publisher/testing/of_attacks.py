"""Rules of attacks: what they ask for, what they train, what they put back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from publisher.api import (
    Attack,
    Frozen,
    ImageRequest,
    Limits,
    Sampling,
    SearchAttack,
    TrainingAttack,
    WeightAttack,
    denoiser_of,
)
from publisher.api.searching import Budget
from publisher.testing.plugin import PluginUnderTest, Rule, demand

if TYPE_CHECKING:
    import torch

SAMPLING = Sampling(images=6, steps=2, guidance=2.0, seed=3)
STEPS = 2
"""Training steps that a rule takes."""


def asks_the_same_again(one: PluginUnderTest) -> None:
    """Demand requests, the same ones in the same order each time it is asked."""
    first, again = _requests(one), _requests(one)
    demand(first, "it asks for no image, though the concept has prompts, paraphrases and a description")
    demand(first == again, "it asks for other images when it is asked again")


def asks_for_its_concept(one: PluginUnderTest) -> None:
    """Demand that every request carries the concept that the check is about."""
    others = sorted({request.concept for request in _requests(one)} - {one.scope.concepts[0].id})
    demand(not others, f"it asks for {', '.join(others)} when it is to ask for {one.scope.concepts[0].id}")


def no_image_counts_twice(one: PluginUnderTest) -> None:
    """Demand that no two requests are equal: they would be one image, counted as two."""
    requests = _requests(one)
    demand(len(set(requests)) == len(requests), "two of its requests are equal: give each image another seed")


def seeds_move(one: PluginUnderTest) -> None:
    """Demand that another first seed gives other images."""
    moved = SAMPLING.model_copy(update={"seed": SAMPLING.seed + 1000})
    same = set(_requests(one)) & set(_requests(one, moved))
    demand(not same, "it does not begin with the sampling's seed: another seed gives the same images")


def _requests(one: PluginUnderTest, sampling: Sampling = SAMPLING) -> list[ImageRequest]:
    found = list(one.plugin().requests(one.params, one.scope.concepts[0], sampling))
    strange = [request for request in found if not isinstance(request, ImageRequest)]
    demand(not strange, f"it returns {strange[:1]!r}, which is no api.ImageRequest")
    return found


def trains(one: PluginUnderTest) -> None:
    """Demand losses that are numbers, and a model that predicts something else after two steps."""
    losses, before, after = _trained(one)
    demand(len(losses) == STEPS and all(loss == loss for loss in losses), f"its losses are {losses}")  # noqa: PLR0124
    demand(not bool((before == after).all()), "the model predicts after two steps what it predicted before")


def same_generator_same_training(one: PluginUnderTest) -> None:
    """Demand that random numbers come from the generator it is given: the same one trains the same model."""
    import torch

    first = _trained(one)
    one.results.pop("trained")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        again = _trained(one)
    same = first[0] == again[0] and bool((first[2] == again[2]).all())
    demand(same, "two trials with equal generators differ: take random numbers from the generator alone")


def honours_masks(one: PluginUnderTest) -> None:
    """Demand that a frozen tensor of the denoiser stays as it is."""
    import torch

    pipeline = _pipeline(one)
    weights = dict(denoiser_of(pipeline).named_parameters())
    name = next(iter(weights))
    before = weights[name].detach().clone()
    with torch.random.fork_rng(devices=[]):
        _train(one, pipeline, torch.Generator().manual_seed(0), frozen={name: ()})
    found = [weight for found, weight in denoiser_of(pipeline).named_parameters() if _plain(found) == _plain(name)]
    held = len(found) == 1 and torch.equal(found[0].detach(), before)
    demand(held, f"it trained {name}, which a freeze mask holds: take weights from free_parameters alone")


def _plain(name: str) -> str:
    """Return a weight's name without the wrapper that an adapter puts around its layer."""
    return name.replace("base_model.model.", "").replace(".base_layer", "")


def _trained(one: PluginUnderTest) -> tuple[list[float], torch.Tensor, torch.Tensor]:
    import torch

    if "trained" not in one.results:
        with torch.random.fork_rng(devices=[]):
            one.results["trained"] = _train(one, _pipeline(one), torch.Generator().manual_seed(0), frozen={})
    found: tuple[list[float], torch.Tensor, torch.Tensor] = one.results["trained"]
    return found


def _pipeline(one: PluginUnderTest) -> Any:
    import torch

    from publisher.runtime.pipelines import load

    return load(one.model.folder, one.model.anatomy, torch.device("cpu"), torch.float32)


def _train(
    one: PluginUnderTest, pipeline: Any, generator: torch.Generator, *, frozen: Frozen
) -> tuple[list[float], torch.Tensor, torch.Tensor]:
    """Train two steps: the losses, and what the denoiser says of one noisy image before and after."""
    import torch

    from publisher.api import TrainingData

    attack, concept, latents = one.plugin(), one.scope.concepts[0], one.model.anatomy.latents
    noise = torch.Generator().manual_seed(1)
    rows = torch.randn(6, latents.channels, *latents.size, generator=noise)
    captions = attack.captions(one.params, concept)
    demand(captions, "it has no caption for a concept with prompts, paraphrases and a description")
    under = tuple(captions[i % len(captions)] for i in range(len(rows)))
    prior = rows[: 2 if attack.prior_images(one.params) else 0]
    data = TrainingData(rows, under, prior, concept.prompts[: len(prior)], concept, frozen)
    learner = attack.learner(one.params, pipeline, data, generator)

    def says() -> torch.Tensor:
        with torch.no_grad():
            text = learner.encode(captions[:1])
            said: torch.Tensor = one.model.anatomy.predict(denoiser_of(pipeline), rows[:1], torch.tensor([500]), text)
        return said.clone()

    before = says()
    losses = [float(learner.step()) for _ in range(STEPS)]
    return losses, before, says()


def alters_in_place_of(one: PluginUnderTest) -> None:
    """Demand that a tensor keeps shape and type when the attacker puts another in its place, each time the same."""
    import torch

    part = one.model.anatomy.denoiser
    name = next(name for name in one.model.tensors(part) if name.endswith("attn2.to_k.weight"))
    base = one.model.read(part, name)
    given = (one.params, one.model.anatomy, part, name, base * 0.5, base)
    first, again = (one.plugin().alter(*given) for _ in range(2))
    demand((first.shape, first.dtype) == (base.shape, base.dtype), "alter returns another shape or type")
    demand(bool(torch.isfinite(first).all()), "alter returns NaN or infinity")
    demand(torch.equal(first, again), "alter returns something else when it is called again")


ASKING: dict[str, Rule] = {
    "asks-the-same-again": asks_the_same_again,
    "asks-for-its-concept": asks_for_its_concept,
    "no-image-counts-twice": no_image_counts_twice,
    "seeds-move": seeds_move,
}


def limits_are_counts(one: PluginUnderTest) -> None:
    """Demand limits for every budget, more than nothing, and no less for a larger one."""
    attack, before = one.plugin(), Limits()
    for budget in get_args(Budget):
        found = attack.limits(attack.sized(one.params.parse({**one.params.as_json(), "budget": budget})))
        demand(isinstance(found, Limits) and found != Limits(), f"the budget {budget} lets it spend nothing")
        demand(before.within(found), f"the budget {budget} lets it spend less than the one before")
        before = found


def declares_its_access(one: PluginUnderTest) -> None:
    """Demand that the row of the report is one of the grants, and that there is a floor."""
    demand(one.plugin.access in one.plugin.grants, "its access is not among its grants")
    demand(one.plugin.floors, "it has no floor: nothing would show what it finds where there is nothing")


def rules(plugin: type[Attack[Any]]) -> dict[str, Rule]:
    """Return the rules of an attack: those of asking, and those of training, altering or searching."""
    if issubclass(plugin, SearchAttack):
        return {"limits-are-counts": limits_are_counts, "declares-its-access": declares_its_access}
    found = dict(ASKING)
    if issubclass(plugin, TrainingAttack):
        training: dict[str, Rule] = {
            "trains": trains,
            "same-generator-same-training": same_generator_same_training,
            "honours-masks": honours_masks,
        }
        found |= training
    if issubclass(plugin, WeightAttack):
        found["alters-in-place-of"] = alters_in_place_of
    return found
