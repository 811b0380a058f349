"""What the frozen model says, drawn once before a training: rows on trajectories, and pictures of the concepts.

A training never samples from the model that it trains (``surgical.py`` says why), so the frozen model runs here alone
and is trained in place afterwards: no second copy is held. Batches of trajectories are written to the step's scratch
folder one by one: a run that was stopped goes on with the next, to the same bytes.

    rows of a concept       x, t on a trajectory of c or of a;     eps_0(x, a) and eps_0(x, 0)
    rows of a kept prompt   x, t on a trajectory of k;             eps_0(x, k) and eps_0(x, 0)
    noisy pictures          z_t, t of a picture that c gives;      eps_0(z_t, t, a), and the noise

Samples: the noise of each batch of trajectories, and noise and timesteps of each batch of pictures, from a generator of
the batch's own name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from publisher.api import ModelError
from publisher.api.diffusion.checkpoints import Checkpoints, Unusable
from publisher.api.diffusion.ddim import Ddim
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.euler import Euler
from publisher.api.diffusion.latents import Noising
from publisher.api.diffusion.text import Text

BATCH = 16
"""Number of trajectories that are drawn at once."""


@dataclass(frozen=True)
class FrozenRows:
    """Noisy latents, and what the frozen model says of them. On the CPU, float32."""

    x: Tensor
    """Noisy latents ``(n, c, h, w)``."""
    t: Tensor
    """Timesteps ``(n,)``."""
    prompt: Tensor
    """Number of the prompt of each row, ``(n,)``: of the concept's, or of the kept ones."""
    wanted: Tensor
    """Frozen predictions ``(n, c, h, w)`` that the prompt is to give: for the alternative, or for the kept prompt."""
    other: Tensor
    """Frozen predictions ``(n, c, h, w)`` for the empty prompt; of noisy pictures, what the model was made to say."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.x)

    def take(self, rows: Tensor, device: torch.device) -> FrozenRows:
        """Return some rows, on a device; the prompts' numbers stay on the CPU."""
        x, t, wanted, other = (part[rows].to(device) for part in (self.x, self.t, self.wanted, self.other))
        return FrozenRows(x, t, self.prompt[rows], wanted, other)

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it, by name."""
        return {"x": self.x, "t": self.t, "prompt": self.prompt, "wanted": self.wanted, "other": self.other}

    @staticmethod
    def join(parts: Sequence[FrozenRows]) -> FrozenRows:
        """Return all rows, in this order."""
        names = parts[0].tensors()
        return FrozenRows(**{name: torch.cat([part.tensors()[name] for part in parts]) for name in names})


@dataclass(frozen=True)
class Pictures:
    """Pictures of one concept, as latents, and noisy copies of them."""

    latents: Tensor
    """Latents ``(n, c, h, w)``."""
    noisy: FrozenRows
    """Noisy copies, picture by picture."""


@dataclass(frozen=True)
class FrozenModel:
    """The frozen model, and where what it says is kept."""

    denoiser: Denoiser
    """Its denoiser; nothing here changes it."""
    texts: Mapping[str, Text]
    """Every prompt, as the denoiser reads it."""
    empty: str
    """Prompt that guidance compares with."""
    noising: Noising
    """Noise process that it was trained on."""
    generator: Callable[[str], torch.Generator]
    """Purpose -> generator on the CPU, from its beginning."""
    folder: Path
    """Folder of the batches that are done."""
    identity: str
    """Digest of all that the rows depend on."""
    warn: Callable[[str], None]
    """Function that is told of batches that cannot be read again."""
    tell: Callable[[str], None]
    """Function that is told a line to show, before each batch."""

    def text(self, prompts: Sequence[str]) -> Text:
        """Return prompts as one batch."""
        return Text.join([self.texts[prompt] for prompt in prompts])

    def concept(
        self, name: str, pairs: Sequence[tuple[str, str]], owner: str, count: int, sampler: Sampler
    ) -> FrozenRows:
        """Return rows on ``count`` trajectories.

        Args:
            name: the concept's id.
            pairs: the concept's prompts, each with its alternative; they take turns.
            owner: ``"alternative"`` or ``"concept"``: whose prompt the trajectories follow.
            count: number of trajectories, at least 1.
            sampler: grid, and the step from one noise level to the next.
        """
        return self._followed("rows", f"{name}-{owner}", pairs, owner, count, sampler)

    def held_out(self, name: str, pairs: Sequence[tuple[str, str]], sampler: Sampler) -> FrozenRows:
        """Return rows on one more trajectory of a concept's alternative, which nothing is trained on."""
        return self._followed("held", f"{name}-held-alternative", pairs, "alternative", 1, sampler)

    def _followed(
        self, kind: str, name: str, pairs: Sequence[tuple[str, str]], owner: str, count: int, sampler: Sampler
    ) -> FrozenRows:
        turns = [i % len(pairs) for i in range(count)]

        def draw(turn: Sequence[int], generator: torch.Generator) -> FrozenRows:
            goals = self.text([pairs[i][1] for i in turn])
            guides = goals if owner == "alternative" else self.text([pairs[i][0] for i in turn])
            return self._rows(torch.tensor(turn), guides, goals, sampler, generator)

        return self._in_batches(kind, name, turns, draw)

    def kept(self, prompts: Sequence[str], sampler: Sampler) -> FrozenRows:
        """Return rows on one trajectory of each kept prompt."""

        def draw(turn: Sequence[int], generator: torch.Generator) -> FrozenRows:
            said = self.text([prompts[i] for i in turn])
            return self._rows(torch.tensor(turn), said, said, sampler, generator)

        return self._in_batches("kept", "kept", range(len(prompts)), draw)

    def pictures(
        self, name: str, pairs: Sequence[tuple[str, str]], count: int, copies: int, sampler: Sampler
    ) -> Pictures:
        """Return ``count`` pictures of a concept's prompts, with ``copies`` noisy ones of each."""
        turns = [i % len(pairs) for i in range(count)]

        def draw(turn: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
            guides, empty = self.text([pairs[i][0] for i in turn]), self.text([self.empty] * len(turn))
            latents = self._noise(len(turn), generator)
            for place in range(sampler.steps):
                guided, uncond = self._predict(latents, self._timesteps(sampler, place, len(turn)), guides, empty)
                latents = sampler.step(latents, torch.full((len(turn),), place), guided, uncond)
            parts = [self._noisy(latents, turn, pairs, generator) for _ in range(copies)]
            ordered = {key: torch.stack([part[key] for part in parts], 1).flatten(0, 1) for key in parts[0]}
            return {"latents": latents.cpu(), **ordered}

        found = self._stored("pictures", f"pictures-{name}", turns, draw)
        return Pictures(found.pop("latents"), FrozenRows(**found))

    def _noisy(
        self, latents: Tensor, turn: Sequence[int], pairs: Sequence[tuple[str, str]], generator: torch.Generator
    ) -> dict[str, Tensor]:
        noise, t = self.noising.sample(latents, generator)
        x = self.noising.noisy(latents, noise, t)
        (wanted,) = self._predict(x, t, self.text([pairs[i][1] for i in turn]))
        target = self.noising.target(latents, noise, t)
        return FrozenRows(x.cpu(), t.cpu(), torch.tensor(turn), wanted.cpu(), target.cpu()).tensors()

    def _rows(
        self, prompt: Tensor, guides: Text, goals: Text, sampler: Sampler, generator: torch.Generator
    ) -> FrozenRows:
        """Return rows along the guides; where they are the goals themselves, their predictions serve twice."""
        count, parts = len(prompt), []
        empty = self.text([self.empty] * count)
        x = self._noise(count, generator)
        for place in range(sampler.steps):
            t = self._timesteps(sampler, place, count)
            asked = (guides, empty) if goals is guides else (guides, empty, goals)
            guided, uncond, *rest = self._predict(x, t, *asked)
            wanted = rest[0] if rest else guided
            parts.append(FrozenRows(x.cpu(), t.cpu(), prompt, wanted.cpu(), uncond.cpu()))
            x = sampler.step(x, torch.full((count,), place), guided, uncond)
        return FrozenRows.join(parts)

    def _predict(self, x: Tensor, t: Tensor, *asked: Text) -> tuple[Tensor, ...]:
        count = len(asked)
        found = self.denoiser.frozen(torch.cat([x] * count), torch.cat([t] * count), Text.join(asked))
        if not bool(found.isfinite().all()):
            raise ModelError(
                "the denoiser says NaN or infinity before anything is trained",
                where=self.denoiser.anatomy.denoiser,
                hint="Look at the weights; in float16, run in bfloat16 or float32.",
            )
        return found.chunk(count)

    def _timesteps(self, sampler: Sampler, place: int, count: int) -> Tensor:
        return sampler.timesteps(torch.full((count,), place)).to(self.denoiser.device)

    def _noise(self, count: int, generator: torch.Generator) -> Tensor:
        shape = (count, self.denoiser.channels, *self.denoiser.size)
        return torch.randn(shape, generator=generator).to(self.denoiser.device)

    def _in_batches(
        self, kind: str, name: str, turns: Sequence[int], draw: Callable[[Sequence[int], torch.Generator], FrozenRows]
    ) -> FrozenRows:
        return FrozenRows(**self._stored(kind, name, turns, lambda turn, generator: draw(turn, generator).tensors()))

    def _stored(
        self,
        kind: str,
        name: str,
        turns: Sequence[int],
        draw: Callable[[Sequence[int], torch.Generator], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Return what was drawn, batch by batch. Files are told apart by their kind: any id may end in ``-held``."""
        parts = list(self._batches(kind, name, turns, draw))
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def _batches(
        self,
        kind: str,
        name: str,
        turns: Sequence[int],
        draw: Callable[[Sequence[int], torch.Generator], dict[str, Tensor]],
    ) -> Iterator[dict[str, Tensor]]:
        for start in range(0, len(turns), BATCH):
            batch = f"{name}.{start // BATCH}"
            self.tell(f"trajectories, {batch}")
            kept = Checkpoints(self.folder, f"{kind}+{batch}", self.identity)
            try:
                found = kept.load()
            except Unusable as error:
                self.warn(f"a batch of trajectories {error}; it is drawn again")
                found = None
            if found is None:
                drawn = draw(turns[start : start + BATCH], self.generator(f"trajectories/{batch}"))
                kept.save(1, drawn)
                found = (1, drawn)
            yield found[1]


Sampler = Ddim | Euler
"""Grid of noise levels, and the step from one to the next."""
