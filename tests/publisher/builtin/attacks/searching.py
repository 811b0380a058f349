"""Attacks on the embedded model: a check of one of them, made on a hardened and a base model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from publisher.api import Attack, Check, CheckRecord, Claim, Concept, Metric, Sampling, Scope, SearchAttack
from publisher.builtin.executors import Local
from publisher.builtin.metrics.finds import FoundExcess
from publisher.evaluate.checks import Evaluation, run_checks
from publisher.evaluate.context import ModelsUnderTest, ModelUnderTest, ReleaseScorer, Setting, StepClaim, Tools
from publisher.testing.running import context_of
from publisher.testing.tiny import open_model
from publisher_emoji import caption, model_folder, vocabulary
from publisher_emoji.plugin import EmojiScorer
from publisher_erase.params import EraseParams
from publisher_erase.step import Erase
from support.anatomies import EMBEDDED

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
EMBEDDINGS = "text_model.embeddings.token_embedding.weight"
PROJECTIONS = ("attn2.to_k.weight", "attn2.to_v.weight")


def emoji(name: str) -> Concept:
    prompts = tuple(caption(name, style) for style in vocabulary().style_names)
    return Concept(id=name, name=name, label=name, prompts=prompts)


def text_states(name: str) -> torch.Tensor:
    """Return what the embedded model reads in a concept's prompts, ``(prompts, positions, width)``."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(model_folder() / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(model_folder() / "text_encoder")
    tokens = tokenizer(list(emoji(name).prompts), padding="max_length", return_tensors="pt")
    with torch.no_grad():
        states: torch.Tensor = encoder(tokens.input_ids).last_hidden_state
    return states


def projections() -> dict[str, torch.Tensor]:
    """Return the embedded model's text projections."""
    return {name: one for name, one in load_file(model_folder() / WEIGHTS).items() if name.endswith(PROJECTIONS)}


def edited(folder: Path, changed: Mapping[str, torch.Tensor]) -> Path:
    """Write the embedded model with some weights of its denoiser replaced."""
    shutil.copytree(model_folder(), folder)
    weights = load_file(folder / WEIGHTS) | {name: one.contiguous() for name, one in changed.items()}
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    return folder


def reflected(folder: Path) -> Path:
    """Write the embedded model with text projections that read a pizza as a cat and a cat as a pizza."""
    pizza, cat = (text_states(name).double().mean((0, 1)) for name in ("pizza", "cat"))
    direction = (pizza - cat) / (pizza - cat).norm()
    mirror = torch.eye(len(direction), dtype=torch.float64) - 2 * torch.outer(direction, direction)
    return edited(folder, {name: (one.double() @ mirror).to(one.dtype) for name, one in projections().items()})


def within_a_step(folder: Path, steps: int) -> Path:
    """Write the embedded model with text projections that read a cigarette as a pizza until somebody rounds them.

    Every weight rounds to the number that the base model's rounds to, by so many steps of a row on each side of zero.
    """
    cigarette, pizza = (text_states(name).flatten(0, 1) for name in ("cigarette", "pizza"))
    largest = torch.linalg.matrix_norm(cigarette, 2).square()

    def hidden(weight: torch.Tensor) -> torch.Tensor:
        most = weight.abs().amax(1, keepdim=True)  # gives a row's steps their size, so it stays
        step = most / steps
        rounded, found = (weight / step).round() * step, weight
        low, high = (rounded - 0.499 * step).clamp(min=-most), (rounded + 0.499 * step).clamp(max=most)
        wanted = (2 * pizza - cigarette) @ weight.T  # twice as far as a pizza: many weights are stopped
        for _ in range(20):
            gradient = (cigarette @ found.T - wanted).T @ cigarette
            found = torch.where(weight.abs() == most, weight, (found - gradient / largest).clamp(low, high))
        return found

    return edited(folder, {name: hidden(one) for name, one in projections().items()})


def erased(folder: Path) -> Path:
    """Write the embedded model as ``erase`` leaves it: a cigarette is gone, and a pizza stands in its place."""
    params = EraseParams(targets={"cigarette": "pizza"})
    scope = Scope(concepts=(emoji("cigarette"),), keep=tuple(map(emoji, ("pizza", "cat", "pencil"))))
    ctx = context_of(Erase, params, open_model(model_folder()), scope, folder / "scratch")
    Erase().run(params, ctx)
    return edited(folder, {name: one for (_, name), one in ctx.tensors.items()})


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


def evaluated(  # noqa: PLR0913 - all that a check can be about
    attack: Attack[Any],
    hardened: ModelUnderTest,
    params: dict[str, Any],
    gone: Concept | None = None,
    kept: tuple[str, ...] = ("cat",),
    base: Path | None = None,
    *,
    check: Mapping[str, Any] | None = None,
    metric: Metric[Any] | None = None,
    retrained: Path | None = None,
    sampling: Sampling | None = None,
    **setting: Any,
) -> Evaluation:
    """Return the record and the evidence of such a check, with finds in clear."""
    gone, metric = gone or emoji("pizza"), metric or FoundExcess()
    tools = Tools(
        attacks={attack.name: attack},
        metrics={metric.name: metric},
        scorers={"emoji": ReleaseScorer("emoji", EmojiScorer(), ("object", "style"))},
        judges={"object": "emoji"},
        executor=Local(),
    )
    made = Check(
        id="search",
        attack=attack.name,
        attack_params=params,
        metric=metric.name,
        concepts=(gone.id,),
        **(check or {}),
    )
    claim = Claim(id="claim", sentence=f"{gone.id} is gone", binds="in-weights", checks=(made,))
    return run_checks(
        [StepClaim(("step",), claim)],
        Scope(concepts=(gone,), keep=tuple(map(emoji, kept))),
        ModelsUnderTest(
            ModelUnderTest.of(base or model_folder(), EMBEDDED),
            hardened,
            retrained=ModelUnderTest.of(retrained, EMBEDDED) if retrained else None,
        ),
        tools,
        sampling or Sampling(steps=4, guidance=3.0),
        Setting("cpu", "float32", publish_finds=True, **setting),
    )
