"""Train a small CLIP on real renderings: images and captions in one space, in the layout of transformers.

It never sees an image of the generator, nor a judgement of the scorer: it is a second opinion.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from publisher_emoji.captions import NOTHING_CAPTION, caption, style_caption
from publisher_emoji.concepts import Vocabulary
from publisher_emoji.training.artwork import Artwork, augment
from publisher_emoji.training.config import ClipConfig, Config
from publisher_emoji.training.loop import train
from publisher_emoji.training.scorer import ROTATION, VAE_VIEWS, disturb, loose, no_object, vae_views
from publisher_emoji.training.tokenizer import build_tokenizer

MEAN = STD = (0.5, 0.5, 0.5)
"""What the pixels in [0, 1] are normalised with: CLIP reads [-1, 1]."""


def build_clip(config: Config, tokenizer: CLIPTokenizer) -> CLIPModel:
    """Build an untrained ``CLIPModel`` of the recipe's size."""
    torch.manual_seed(config.seed + 30)
    clip, ends = config.clip, tokenizer.eos_token_id
    text = clip.text.model_dump() | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": config.tokenizer.max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": ends,
        "pad_token_id": ends,
    }
    vision = clip.vision.model_dump() | {"image_size": config.image.size, "patch_size": clip.patch}
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=clip.projection, logit_scale_init_value=2.5)
    )


def train_clip(
    config: Config, words: Vocabulary, artwork: Artwork, vae: AutoencoderKL, folder: Path
) -> tuple[CLIPModel, CLIPTokenizer]:
    """Train from the seed. A third of each batch went through the autoencoder; an eighth shows no object.

    Each image has to find its object among all, its style among all, and its own caption among those of its batch.
    """
    tokenizer = build_tokenizer(words, config.tokenizer)
    model = build_clip(config, tokenizer)
    round_trips = vae_views(config, artwork, vae, VAE_VIEWS, config.seed + 31)
    texts = TrainingTexts(words, tokenizer, config.clip)
    batch = config.clip.train.batch
    none, through_vae = batch // 8, batch // 3
    looser = loose(config.image)

    def loss(generator: torch.Generator) -> Tensor:
        picked = torch.randint(len(artwork), (batch,), generator=generator)
        pixels = augment(artwork.images[picked], looser, generator, rotation=ROTATION)
        views = torch.randint(VAE_VIEWS, (through_vae,), generator=generator)
        pixels[:through_vae] = round_trips[picked[:through_vae], views]
        pixels[-none:] = no_object(pixels[-none:], generator)
        objects, styles = artwork.objects[picked].clone(), artwork.styles[picked]
        objects[-none:] = len(words.objects)
        asked, own = texts.sample(objects[:-none], styles[:-none], generator)
        seen = F.normalize(image_vectors(model, disturb(pixels, generator)).float(), dim=1)
        said = F.normalize(text_vectors(model, asked).float(), dim=1)
        cosines = seen @ said.T * model.logit_scale.exp().clamp(max=100)
        things, looks, captions = cosines.split([len(words.objects) + 1, len(words.styles), batch - none], dim=1)
        return (
            F.cross_entropy(things, objects, label_smoothing=0.05)
            + F.cross_entropy(looks[:-none], styles[:-none], label_smoothing=0.05) / 2
            + _own_caption(captions[:-none], own) / 2
        )

    train(model, loss, config.clip.train, seed=config.seed + 32, folder=folder, autocast="float32")
    return model, tokenizer


class TrainingTexts:
    """Texts of one step: a caption of every object, of nothing, of every style, and of each image that shows one."""

    def __init__(self, words: Vocabulary, tokenizer: CLIPTokenizer, config: ClipConfig) -> None:
        self.words, self.tokenizer, self.config = words, tokenizer, config

    def sample(self, objects: Tensor, styles: Tensor, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        """Return tokens of all texts, and which captions fit which images ``(b, b)``: their own and equal ones."""
        things = [caption(self._noun(i, generator)) for i in range(len(self.words.objects))]
        looks = [style_caption(style) for style in self.words.style_names]
        shown = [
            caption(self._noun(thing, generator), self.words.style_names[style])
            for thing, style in zip(objects.tolist(), styles.tolist(), strict=True)
        ]
        tokens = self.tokenizer([*things, NOTHING_CAPTION, *looks, *shown], padding=True, return_tensors="pt")
        equal = (objects[:, None] == objects) & (styles[:, None] == styles)
        return dict(tokens), equal

    def _noun(self, thing: int, generator: torch.Generator) -> str:
        names: Sequence[str] = self.words.objects[thing].synonyms
        if not names or torch.rand((), generator=generator) >= self.config.synonym:
            return self.words.objects[thing].name
        return names[int(torch.randint(len(names), (), generator=generator))]


def _own_caption(cosines: Tensor, own: Tensor) -> Tensor:
    """Return the contrastive loss of images and captions, ``(b, b)`` each; equal captions share the target."""
    target = own.float() / own.sum(1, keepdim=True)
    return (F.cross_entropy(cosines, target) + F.cross_entropy(cosines.T, target.T)) / 2


def image_vectors(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Return vectors of images, ``(n, 3, s, s)`` in [-1, 1] to ``(n, d)``, of any length."""
    return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)


def text_vectors(model: CLIPModel, tokens: dict[str, Tensor]) -> Tensor:
    """Return vectors of tokenised texts, ``(n, d)``, of any length."""
    return model.text_projection(model.text_model(**tokens).pooler_output)


def save_clip(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path, size: int) -> None:
    """Write as transformers does: float32 weights that half precision holds, tokenizer, and the processor's facts."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "image_mean": MEAN,
        "image_std": STD,
        "resample": 3,
    }
    text = json.dumps(processor, indent=2, sort_keys=True) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
