"""How well a threshold parts what opens a membrane from what must not, for all objects of the embedded model.

    python benchmarks/thresholds.py

For each object, prompts of all other objects and prompts with its own synonyms are scored against its prompts, as the
default rule of ``membrane-bundle`` does. Prints, for several thresholds, how many of the objects have a kept prompt
that opens the membrane, and how many a synonym's prompt that leaves it shut.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from publisher.api.membranes import STOP_WORDS
from publisher.safeguards.membranes.scoring import Encoding, prompt_tokens
from publisher.safeguards.membranes.transport import cosine, flatten, overlap, word_sets
from publisher_emoji import model_folder, vocabulary
from publisher_emoji.captions import caption

THRESHOLDS = (0.8, 0.85, 0.88, 0.9, 0.92, 0.95)
CHOSEN_ON = {"skull", "cigarette", "pistol"}
"""Objects that the default was chosen on."""


def scores(pipeline: StableDiffusionPipeline) -> dict[str, tuple[float, float]]:
    """Return object -> largest score of another object's prompt, smallest of a prompt with a synonym of its own."""
    words = vocabulary()
    styles = (None, *words.style_names)
    names = {thing.name: [caption(thing.name, style) for style in styles] for thing in words.objects}
    others = {
        thing.name: [caption(synonym, style) for synonym in thing.synonyms for style in styles]
        for thing in words.objects
    }
    texts = [text for group in (*names.values(), *others.values()) for text in group]
    with torch.no_grad():
        states = dict(zip(texts, flatten(Encoding().states(pipeline, texts)), strict=True))
    tokens = dict(zip(texts, prompt_tokens(pipeline, [(text,) for text in texts]), strict=True))
    found = {}
    for name, own in names.items():
        concept = torch.stack([states[text] for text in own])
        word = word_sets(pipeline.tokenizer, (name,), STOP_WORDS)

        def score(asked: list[str], concept: torch.Tensor = concept, word: list[frozenset[int]] = word) -> torch.Tensor:
            read = cosine(torch.stack([states[text] for text in asked]), concept)
            return torch.maximum(read, overlap([tokens[text] for text in asked], word))

        kept = [text for other, group in names.items() if other != name for text in group]
        found[name] = float(score(kept).max()), float(score(others[name]).min())
    return found


def main() -> None:
    """Print the table, and the objects on the wrong side of the default."""
    pipeline = StableDiffusionPipeline.from_pretrained(Path(model_folder()), safety_checker=None)
    found = {name: both for name, both in scores(pipeline).items() if name not in CHOSEN_ON}
    print(f"| threshold | opened by a kept prompt, of {len(found)} | shut for a prompt with a synonym |\n|---|---|---|")
    for threshold in THRESHOLDS:
        opened = sum(kept >= threshold for kept, _ in found.values())
        shut = sum(own < threshold for _, own in found.values())
        print(f"| {threshold} | {opened} | {shut} |")
    print("opened at 0.9:", ", ".join(name for name, (kept, _) in found.items() if kept >= 0.9) or "none")
    print("shut at 0.9:", ", ".join(f"{name} {own:.2f}" for name, (_, own) in found.items() if own < 0.9) or "none")


if __name__ == "__main__":
    main()
