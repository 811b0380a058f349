"""Attackers inside the training of ``robust.py``: what they find is kept, and rows of the training are made of it.

Each looks for text states under which the model, as it is then, draws the concept. They are exchangeable: a new one has
``find``, and a line in :func:`attackers_of`. Those that search by gradient run all their searches side by side in one
batch; the weights ask for no gradient meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from publisher.api import Concept, Model, UsageError
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.latents import Noising
from publisher.api.diffusion.text import Text
from publisher.api.loading import load_pipeline
from publisher_erase.params import InnerParams
from publisher_erase.plan import substitute
from publisher_erase.robust import derived_rows, inner_losses

Predict = Callable[[Tensor, Tensor, Text], Tensor]
"""Noisy latents, timesteps and texts to predictions of the model as it is."""


class Attacker(Protocol):
    """Something that looks for text states that bring concepts back."""

    name: str
    by_gradient: bool
    """Whether it searches; else it is a closed form."""

    def find(self, generator: torch.Generator) -> tuple[list[Text], list[float]]:
        """Return the finds of each concept, as one batch each, and the losses of a search over its steps, if any."""


class DerivedAttacker:
    """The closed form on keys and values.

    Args:
        own: prompts of each concept, encoded.
        weights: keys and values of the model that is trained, which change in place.
        base: the same of the frozen model.
        rho: pull towards 0.
    """

    name, by_gradient = "derived", False

    def __init__(self, own: Sequence[Text], weights: Sequence[Tensor], base: Sequence[Tensor], rho: float) -> None:
        self._own, self._weights, self._base, self._rho = own, weights, base, rho

    def find(self, generator: torch.Generator) -> tuple[list[Text], list[float]]:  # noqa: ARG002 - it samples nothing
        """Return the rows derived from all prompts of each concept."""
        now = [weight.detach() for weight in self._weights]
        return [
            Text(derived_rows(text.states, now, self._base, self._rho), text.pooled, text.mask) for text in self._own
        ], []


class GradientSearch:
    """Searches by gradient, all concepts' side by side.

    Args:
        params: of the attackers.
        pictures: latents of each concept's pictures, on the device.
        noising: noise process of the model.
        predict: the model as it is.
    """

    def __init__(self, params: InnerParams, pictures: Sequence[Tensor], noising: Noising, predict: Predict) -> None:
        self.params, self.pictures, self.noising, self.predict = params, pictures, noising, predict

    @property
    def attacks(self) -> int:
        """Number of searches."""
        return self.params.fresh * len(self.pictures)

    def run(
        self, moved: Sequence[Tensor], read: Callable[[], Text], generator: torch.Generator, steps: int | None = None
    ) -> list[float]:
        """Move tensors by Adam, so that the model draws the pictures when it reads what they say.

        Args:
            moved: leaves ``(attacks, ...)``, concept by concept.
            read: returns the texts that they stand for, one for each attack.
            generator: source of pictures, noise and timesteps.
            steps: number of steps; None: that of the parameters.

        Returns:
            The mean loss of each step.

        Raises:
            UsageError: a loss or a gradient is no number; rows made of such a find would end the training, and blame
                its rate.
        """
        # A rate in units of the root mean square: the same for every text encoder.
        groups = [{"params": [one], "lr": self.params.lr * float(one.detach().square().mean().sqrt())} for one in moved]
        adam, batch, losses = torch.optim.Adam(groups), self.params.batch, []
        for _ in range(self.params.steps if steps is None else steps):
            x = torch.cat([self._some(latents, generator) for latents in self.pictures])
            noise, t = self.noising.sample(x, generator)
            said = read()
            rows = torch.arange(self.attacks, device=x.device).repeat_interleave(batch)
            predicted = self.predict(self.noising.noisy(x, noise, t), t, chosen(said, rows))
            found = inner_losses(predicted, self.noising.target(x, noise, t), self.attacks)
            gradients = torch.autograd.grad(found.sum(), list(moved))
            losses.append(float(found.detach().mean()))
            if not math.isfinite(losses[-1]) or not all(bool(gradient.isfinite().all()) for gradient in gradients):
                raise UsageError(
                    f"the attackers' losses or gradients are no longer numbers, in step {len(losses)} of a search",
                    hint="Lower robust.attack.lr. In float16, run in bfloat16 or float32.",
                )
            for one, gradient in zip(moved, gradients, strict=True):
                one.grad = gradient
            adam.step()
        return losses

    def _some(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(latents), (self.params.fresh * self.params.batch,), generator=generator)
        return latents[rows.to(latents.device)]

    def by_concept(self, found: Text) -> list[Text]:
        """Return the finds of each concept, without graphs."""
        rows = torch.arange(self.attacks, device=found.states.device).chunk(len(self.pictures))
        return [detached(chosen(found, part)) for part in rows]


class StatesAttacker:
    """Free text states, and a free pooled vector where there is one.

    Args:
        search: what runs the searches.
        starts: kept prompts, as one batch; each search starts from one of them.
    """

    name, by_gradient = "states", True

    def __init__(self, search: GradientSearch, starts: Text) -> None:
        self._search, self._starts = search, starts
        self.steps = search.params.steps
        """Number of steps of a search."""

    def find(self, generator: torch.Generator, steps: int | None = None) -> tuple[list[Text], list[float]]:
        """Return what all searches end with."""
        picked = torch.randint(len(self._starts.states), (self._search.attacks,), generator=generator)
        start = chosen(self._starts, picked.to(self._starts.states.device))
        states = start.states.detach().clone().requires_grad_()
        pooled = None if start.pooled is None else start.pooled.detach().clone().requires_grad_()
        moved = [states] if pooled is None else [states, pooled]
        found = Text(states, pooled, start.mask)
        losses = self._search.run(moved, lambda: found, generator, steps)
        return self._search.by_concept(found), losses


class TokenAttacker:
    """One token vector in front of each text encoder, in the concept's own prompts: textual inversion.

    Args:
        search: what runs the searches.
        model: input of the step; its text encoders are loaded and kept.
        device: where they run.
        concepts: concepts, with the prompts that the new word is put into.
        words: names of kept concepts; a search starts from the vector of one that is a single token.

    Raises:
        UsageError: no kept name is a single token.
    """

    name, by_gradient = "token", True

    def __init__(
        self,
        search: GradientSearch,
        model: Model,
        device: torch.device,
        concepts: Sequence[tuple[Concept, Sequence[str]]],
        words: Sequence[str],
    ) -> None:
        self._search, self._concepts = search, concepts
        anatomy = model.anatomy
        without = (anatomy.denoiser, "vae")
        self._pipeline = load_pipeline(model.folder, anatomy, torch.float32, without=without).to(device)
        parts = anatomy.text_encoders
        self._encoders = [getattr(self._pipeline, part.component).requires_grad_(False) for part in parts]
        self._tokenizers = [getattr(self._pipeline, part.tokenizer) for part in parts]
        ids = {word: [_ids(tokenizer, word) for tokenizer in self._tokenizers] for word in words}
        self._words = {
            word: [one[0] for one in each] for word, each in ids.items() if all(len(one) == 1 for one in each)
        }
        if not self._words:
            raise UsageError(
                "no kept concept's name is a single token, which the attacker 'token' starts from",
                hint="Keep one that is, or leave 'token' out of kinds.",
            )

    def find(self, generator: torch.Generator) -> tuple[list[Text], list[float]]:
        """Return the states of the prompts with the words that all searches end with."""
        fresh, names = self._search.params.fresh, list(self._words)
        prompts, tokens = [], []
        for concept, own in self._concepts:
            for _ in range(fresh):
                word = names[int(torch.randint(len(names), (1,), generator=generator))]
                prompt = own[int(torch.randint(len(own), (1,), generator=generator))]
                prompts.append(substitute(prompt, (concept.name, *concept.synonyms), word))
                tokens.append(self._words[word])
        vectors, hooks = [], []
        for number, encoder in enumerate(self._encoders):
            table: nn.Module = encoder.get_input_embeddings()
            ids = torch.tensor([token[number] for token in tokens], device=encoder.device)
            vectors.append(table(ids).detach().clone().requires_grad_())
            hooks.append(table.register_forward_hook(_put(ids, vectors[-1])))
        try:

            def read() -> Text:
                return self._pipeline.anatomy.read_text(self._pipeline, prompts)  # type: ignore[no-any-return]

            losses = self._search.run(vectors, read, generator)
            with torch.no_grad():
                found = read()
        finally:
            for hook in hooks:
                hook.remove()
        return self._search.by_concept(found), losses


def _ids(tokenizer: Any, word: str) -> list[int]:
    found: list[int] = tokenizer(word, add_special_tokens=False).input_ids
    return found


def _put(ids: Tensor, vectors: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a hook that puts row i of ``vectors`` where text i has token ``ids[i]``."""

    def put(_table: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        here = (inputs[0] == ids[:, None])[..., None]
        return torch.where(here, vectors[:, None].to(output.dtype), output)

    return put


def attackers_of(
    params: InnerParams, derived: Callable[[], Attacker], states: Callable[[], Attacker], token: Callable[[], Attacker]
) -> list[Attacker]:
    """Return the attackers that the parameters name, in their order; others are not made."""
    makers: Mapping[str, Callable[[], Attacker]] = {"derived": derived, "states": states, "token": token}
    return [makers[kind]() for kind in params.kinds]


def chosen(text: Text, rows: Tensor) -> Text:
    """Return some texts of a batch, by row."""
    pooled = None if text.pooled is None else text.pooled[rows]
    return Text(text.states[rows], pooled, None if text.mask is None else text.mask[rows])


def detached(text: Text) -> Text:
    """Return the same numbers without graphs."""
    return Text(text.states.detach().clone(), None if text.pooled is None else text.pooled.detach().clone(), text.mask)


@contextmanager
def frozen_weights(denoiser: Denoiser) -> Iterator[None]:
    """Let no weight of the denoiser ask for gradients inside; afterwards those ask that did before."""
    asking = [weight for weight in denoiser.network.parameters() if weight.requires_grad]
    for weight in asking:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in asking:
            weight.requires_grad_()
