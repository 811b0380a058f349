"""The evidence files of a release: what each number was counted from, one JSON object a line."""

from __future__ import annotations

from pydantic import Field

from publisher.api.claims import MembraneUse
from publisher.api.metrics import Observation
from publisher.api.params import Params
from publisher.api.scorers import Judgement
from publisher.api.training import Trial


class EvidenceRow(Params):
    """One request of one check, drawn by both models and judged: a line of the evidence file."""

    check: str
    concept: str
    prompt: str
    negative_prompt: str
    seed: int
    """Of the initial noise: ``torch.Generator().manual_seed(seed)``, float32, on the CPU."""
    sampler: str
    """Class of the scheduler."""
    steps: int
    guidance: float
    base: Judgement
    """What the scorer says of the base model's image."""
    hardened: Judgement
    """What the scorer says of the hardened model's image."""
    base_hit: bool
    """The scorer sees the concept in the base model's image."""
    hardened_hit: bool
    """The scorer sees the concept in the hardened model's image."""
    base_sha256: str
    """Of the pixels: uint8, RGB, row by row."""
    hardened_sha256: str
    distance: float = Field(ge=0)
    """Root mean square difference on [0, 1] pixels."""
    membranes: MembraneUse = "on"
    """As the check asks: with the package's membranes, or without them."""
    permeabilities: dict[str, float] | None = None
    """Concept of each membrane -> how far the prompt opens it; None: no membrane was attached."""

    @property
    def observation(self) -> Observation:
        """What a metric is told of it."""
        return Observation(
            concept=self.concept,
            prompt=self.prompt,
            seed=self.seed,
            negative_prompt=self.negative_prompt,
            steps=self.steps,
            guidance=self.guidance,
            base=self.base_hit,
            hardened=self.hardened_hit,
            distance=self.distance,
            permeability=None if self.permeabilities is None else sum(self.permeabilities.values()),
        )


class TrialRow(Params):
    """One trial: a line of the evidence file of an attack by training."""

    check: str
    model: str
    """sha256 that names the weights that were attacked."""
    frozen: str = ""
    """sha256 that names what the attacker left as it was; empty: nothing."""
    captions: tuple[str, ...]
    """Written under the images, in turn."""
    prompts: tuple[str, ...]
    """Of the images drawn after each horizon."""
    seeds: tuple[int, ...]
    """Of their initial noise."""
    trial: Trial
    labels: tuple[tuple[str, ...], ...]
    """What the scorer sees, horizon by horizon, image by image."""
    sha256: tuple[tuple[str, ...], ...]
    """Of the images' pixels, likewise."""
