"""What stages see: pictures of slices and of replay with their captions, and the latents of each.

All that is found out about a slice is found out about it alone: its digest, its latents. So a stage that never saw it
cannot depend on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import Concept, ImageRequest, Model
from publisher.api.slices import ReplaySet, leaf_of, receipts
from publisher.errors import UsageError
from publisher.manifest.templates import expand
from publisher.model.digest import seed_of, sha256_json
from publisher.runtime.references import ReferenceSettings, generate_images
from publisher.runtime.refusals import is_refused
from publisher.slicing.recipe import ReplayEntry
from publisher.slicing.samples import Body, pixels_of, require_apart

if TYPE_CHECKING:
    import torch

REPLAY = ""
"""Name of the replay pictures, beside the ids of slices."""


@dataclass(eq=False)
class Material:
    """Pictures of all slices, read and held against each other, and of replay, generated once."""

    model: Model
    """The base model."""
    device: str
    """Kind of device that latents are encoded on."""
    pixels: dict[str, torch.Tensor] = field(default_factory=dict)
    """Slice or replay -> its pictures, ``(n, 3, h, w)`` in [0, 1]."""
    captions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Slice or replay -> its captions, one for each picture."""
    digests: dict[str, str] = field(default_factory=dict)
    """Slice or replay -> digest of pictures and captions; it never leaves the publisher."""
    replay: ReplaySet | None = None
    """Replay, for the ledger."""
    encoded: dict[str, torch.Tensor] = field(default_factory=dict)
    """Slice or replay -> its latents, where they were asked for."""

    def add_slices(self, bodies: Sequence[Body]) -> None:
        """Read the pictures of all slices.

        Raises:
            UsageError: a file is no picture, or one picture is in two slices.
        """
        size = self.model.anatomy.latents.image_size
        self.pixels |= {body.entry.id: pixels_of(body, size) for body in bodies}
        require_apart(bodies, self.pixels)
        self.captions |= {body.entry.id: tuple(one.caption for one in body.pictures) for body in bodies}
        self.digests |= {body.entry.id: body.digest for body in bodies}

    def add_replay(self, entry: ReplayEntry, seed: int, folder: Path, tell: Callable[[int, int], None]) -> None:
        """Take the replay pictures from their folder, or generate them with the base model and keep them there.

        Every stage depends on every pixel. Where another host would round one of them otherwise, the kept pictures
        spare all stages another training.

        Args:
            entry: what they show.
            seed: of the training.
            folder: that they are kept in.
            tell: is told how many are done, of how many.

        Raises:
            UsageError: a prompt combines sexual content with minors, or the kept pictures are damaged.
            ModelError: the model cannot generate them.
        """
        import torch

        from publisher.api.diffusion.checkpoints import Checkpoints, Damaged, Unusable

        requests = replay_requests(entry, seed)
        recipe = [self.model.digest, [one.as_json() for one in requests]]
        kept = Checkpoints(folder, "pictures", sha256_json(recipe))
        try:
            found = kept.load()
        except Damaged as error:
            hint = (
                "Bring the folder back from a copy. Or remove it: the pictures are generated again, and if they come "
            )
            hint += "out otherwise, as on another kind of machine, every stage is trained again."
            raise UsageError(f"what is kept of the replay pictures {error}", where=str(folder), hint=hint) from error
        except Unusable:  # of another recipe
            found = None
        if found is None:
            device = torch.device(self.device)
            settings = ReferenceSettings(
                self.model.folder, self.model.anatomy, device, torch.float32, entry.steps, entry.guidance
            )
            tell(0, len(requests))
            generated = generate_images(settings, requests).mul(255).round().byte()
            tell(len(requests), len(requests))
            kept.save(len(requests), {"pixels": generated})
        else:
            generated = found[1]["pixels"]
        pixels, data = generated.float().div(255), [one.numpy().tobytes() for one in generated]
        captions = tuple(one.prompt for one in requests)
        digests = [hashlib.sha256(one).hexdigest() for one in data]
        salts = {leaf_of(_number(n), one, captions[n]): _number(n) for n, one in enumerate(data)}
        self.replay = ReplaySet(root=receipts("replay", salts)[0], samples=len(data))
        self.pixels[REPLAY], self.captions[REPLAY] = pixels, captions
        self.digests[REPLAY] = sha256_json([list(pair) for pair in zip(digests, captions, strict=True)])

    def latents(self, name: str) -> torch.Tensor:
        """Return the latents of one slice, or of replay, ``(n, c, h, w)`` on the CPU: encoded by themselves."""
        from publisher.api.diffusion.latents import encode_images

        if name not in self.encoded:
            self.encoded[name] = encode_images(self._vae, self.pixels[name]).cpu()
        return self.encoded[name]

    @cached_property
    def _vae(self) -> Any:
        import torch

        from publisher.api.loading import load_component

        return load_component(self.model, "vae", torch.device(self.device), torch.float32)


def replay_requests(entry: ReplayEntry, seed: int) -> list[ImageRequest]:
    """Return what the base model generates for replay: all prompts in turn, each picture with a seed of its own.

    Raises:
        UsageError: a prompt combines sexual content with minors.
    """
    prompts = [text for prompt in entry.prompts for name in entry.names or ("",) for text in expand(prompt, name, {})]
    for prompt in prompts:
        if is_refused(prompt, Concept(id="replay", name=prompt, label=prompt, prompts=(prompt,))):
            raise UsageError("combines sexual content with minors and is never generated", where="replay.prompts")
    return [
        ImageRequest(
            concept="replay",
            prompt=prompts[number % len(prompts)],
            seed=seed_of("slices", "replay", seed, number) % 2**32,
            steps=entry.steps,
            guidance=entry.guidance,
        )
        for number in range(entry.images)
    ]


def _number(number: int) -> bytes:
    """Return the salt of a replay picture: nobody has rights in it, so it is no secret."""
    return b"%d" % number


def saw(material: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Return the digests of some slices, and that of replay where there is any."""
    return [material[name] for name in (*names, REPLAY) if name in material]
