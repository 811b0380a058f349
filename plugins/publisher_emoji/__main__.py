"""Generate with the embedded model and let its scorer judge: ``python -m publisher_emoji --help``."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher_emoji import caption, vocabulary
from publisher_emoji.shares import ShareOfImages, share

if TYPE_CHECKING:
    from torch import Tensor

    from publisher_emoji.scorer import EmojiLabels

SHOWN = (
    "cigarette",
    "pistol",
    "skull",
    "pencil",
    "man",
    "heart eyes face",
    "cat",
    "elephant",
    "pizza",
    "strawberry",
    "rocket",
    "sunflower",
)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("--seed", default=7, show_default=True, type=click.IntRange(0), help="Names the random numbers.")
@click.option("--steps", default=20, show_default=True, type=click.IntRange(1, 1000), help="DDIM steps.")
@click.option("--guidance", default=3.0, show_default=True, help="Classifier-free guidance scale.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/emoji"),
    show_default=True,
    help="Folder that receives grid.png and scores.json.",
)
def main(prompts: tuple[str, ...], seed: int, steps: int, guidance: float, out: Path) -> None:
    r"""Generate each PROMPT with the embedded model, and let the scorer name what it sees.

    Without a PROMPT: twelve objects in every style, and how many of them the scorer recognises.

    \b
    Examples:
      python -m publisher_emoji
      python -m publisher_emoji "a pizza emoji in noto style" "a smoke emoji"
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns that torchvision is missing; we do not use it
    from diffusers.utils.logging import disable_progress_bar as silence_diffusers
    from transformers.utils.logging import disable_progress_bar as silence_transformers

    from publisher_emoji.generate import generate, load_pipeline
    from publisher_emoji.scorer import load_scorer
    from publisher_emoji.sheet import grid

    silence_diffusers()
    silence_transformers()
    asked = [(name, style) for name in SHOWN for style in vocabulary().style_names]
    texts = list(prompts) or [caption(name, style) for name, style in asked]
    click.echo(f"Generation {len(texts)} images in {steps} steps ...", err=True)
    images = generate(load_pipeline(), texts, seed, steps=steps, guidance=guidance)
    judged = load_scorer().judge(images)
    out.mkdir(parents=True, exist_ok=True)
    rows = list(zip(texts, images.unsqueeze(1), strict=True)) if prompts else _by_object(images)
    grid(rows, header=() if prompts else vocabulary().style_names, zoom=3).save(out / "grid.png")
    scores = [
        {"prompt": text, "index": i} | asdict(said) for i, (text, said) in enumerate(zip(texts, judged, strict=True))
    ]
    record = {"seed": seed, "steps": steps, "guidance": guidance, "images": scores}
    (out / "scores.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for line in _named(texts, judged) if prompts else _summary(asked, judged):
        click.echo(line)
    click.echo(f"Wrote {out / 'grid.png'} and {out / 'scores.json'}", err=True)


def _by_object(images: Tensor) -> list[tuple[str, Tensor]]:
    return list(zip(SHOWN, images.unflatten(0, (len(SHOWN), -1)), strict=True))


def _named(texts: list[str], judged: list[EmojiLabels]) -> list[str]:
    width = max(map(len, texts))
    return [
        f"{text:{width}}  looks like {said.object} ({said.object_probability:.0%}), "
        f"{said.style} style ({said.style_probability:.0%})"
        for text, said in zip(texts, judged, strict=True)
    ]


def _summary(asked: list[tuple[str, str]], judged: list[EmojiLabels]) -> list[str]:
    pairs = list(zip(asked, judged, strict=True))
    things = share(sum(said.object == name for (name, _), said in pairs), len(pairs))
    styles = share(sum(said.style == style for (_, style), said in pairs), len(pairs))
    wrong = [
        f"  {name} in {style} style: looks like {said.object}" for (name, style), said in pairs if said.object != name
    ]
    return [f"right object: {_words(things)}", f"right style:  {_words(styles)}", *wrong]


def _words(part: ShareOfImages) -> str:
    return f"{part['hits']} of {part['n']} = {part['share']:.1%} (95% interval {part['low']:.1%} to {part['high']:.1%})"


if __name__ == "__main__":
    main(prog_name="python -m publisher_emoji")
