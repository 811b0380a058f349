"""Searches on the embedded model: a check of one attack, made on a hardened and a base model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from publisher.api import Check, CheckRecord, Claim, Concept, Sampling, Scope, SearchAttack
from publisher.builtin.executors import Local
from publisher.builtin.metrics.finds import FoundExcess
from publisher.evaluate.checks import Evaluation, run_checks
from publisher.evaluate.context import ModelsUnderTest, ModelUnderTest, ReleaseScorer, Setting, StepClaim, Tools
from publisher_emoji import caption, model_folder, vocabulary
from publisher_emoji.plugin import EmojiScorer
from support.anatomies import EMBEDDED

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
EMBEDDINGS = "text_model.embeddings.token_embedding.weight"
PROJECTIONS = ("attn2.to_k.weight", "attn2.to_v.weight")


def emoji(name: str) -> Concept:
    prompts = tuple(caption(name, style) for style in vocabulary().style_names)
    return Concept(id=name, name=name, label=name, prompts=prompts)


def reflected(folder: Path) -> Path:
    """Write the embedded model with text projections that read a pizza as a cat and a cat as a pizza."""
    from transformers import CLIPTextModel, CLIPTokenizer

    shutil.copytree(model_folder(), folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    rows = []
    for name in ("pizza", "cat"):
        tokens = tokenizer(list(emoji(name).prompts), padding="max_length", return_tensors="pt")
        with torch.no_grad():
            rows.append(encoder(tokens.input_ids).last_hidden_state.double().mean((0, 1)))
    direction = rows[0] - rows[1]
    direction /= direction.norm()
    edit = torch.eye(len(direction), dtype=torch.float64) - 2 * torch.outer(direction, direction)
    weights = load_file(folder / WEIGHTS)
    edited = {
        name: (one.double() @ edit).to(one.dtype).contiguous() if name.endswith(PROJECTIONS) else one
        for name, one in weights.items()
    }
    save_file(edited, folder / WEIGHTS, {"format": "pt"})
    return folder


def renamed(folder: Path, words: Mapping[str, str]) -> Path:
    """Write the embedded model with words that it reads as others: word -> the word whose embedding it gets."""
    from transformers import CLIPTokenizer

    shutil.copytree(model_folder(), folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    weights = load_file(folder / TEXT)
    rows = weights[EMBEDDINGS].clone()
    for word, other in words.items():
        (own,), (new,) = (tokenizer(one, add_special_tokens=False).input_ids for one in (word, other))
        rows[own] = weights[EMBEDDINGS][new]
    save_file(weights | {EMBEDDINGS: rows}, folder / TEXT, {"format": "pt"})
    return folder


def searched(
    attack: SearchAttack[Any],
    hardened: Path,
    params: dict[str, Any],
    gone: Concept | None = None,
    kept: str = "cat",
    safeguards: Path | None = None,
) -> tuple[CheckRecord, list[dict[str, Any]]]:
    """Run the searches for one concept, a pizza by default, with another one kept; return the record and all finds."""
    record, found = judged(attack, hardened, params, gone, kept, safeguards)
    return record, [one["find"] for one in found]


def judged(
    attack: SearchAttack[Any],
    hardened: Path,
    params: dict[str, Any],
    gone: Concept | None = None,
    kept: str = "cat",
    safeguards: Path | None = None,
) -> tuple[CheckRecord, list[dict[str, Any]]]:
    """Return the same, each find with the seeds and digests of the images that judged it."""
    found = evaluated(attack, ModelUnderTest.of(hardened, EMBEDDED, safeguards), params, gone, (kept,))
    rows = [json.loads(line) for line in found.evidence["evidence/search.jsonl"].decode().splitlines()]
    return found.claims[0].checks[0], [one for row in rows for one in row["finds"]]


def evaluated(
    attack: SearchAttack[Any],
    hardened: ModelUnderTest,
    params: dict[str, Any],
    gone: Concept | None = None,
    kept: tuple[str, ...] = ("cat",),
    base: Path | None = None,
    **setting: Any,
) -> Evaluation:
    """Return the record and the evidence of such a check, with finds in clear."""
    gone = gone or emoji("pizza")
    tools = Tools(
        attacks={attack.name: attack},
        metrics={"found-excess": FoundExcess()},
        scorers={"emoji": ReleaseScorer("emoji", EmojiScorer(), ("object", "style"))},
        judges={"object": "emoji"},
        executor=Local(),
    )
    check = Check(id="search", attack=attack.name, attack_params=params, metric="found-excess", concepts=(gone.id,))
    claim = Claim(id="claim", sentence=f"{gone.id} is gone", binds="in-weights", checks=(check,))
    return run_checks(
        [StepClaim(("step",), claim)],
        Scope(concepts=(gone,), keep=tuple(map(emoji, kept))),
        ModelsUnderTest(ModelUnderTest.of(base or model_folder(), EMBEDDED), hardened),
        tools,
        Sampling(steps=4, guidance=3.0),
        Setting("cpu", "float32", publish_finds=True, **setting),
    )
