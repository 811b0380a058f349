"""Erased against kept on the embedded model, over strength, method and rows: `python benchmarks/erase_tradeoff.py`.

Takes out two objects and a style at once (cigarette, pistol, noto), with 60 of the other objects listed as kept, and
counts by the scorer what is still generated. Prints the table and writes `docs/images/erase-tradeoff.svg`.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import StableDiffusionPipeline

from publisher.api import Concept, Model, Scope
from publisher.builtin.families import StableDiffusion1
from publisher.model.folder import ModelFolder, read_configs
from publisher.model.state import State
from publisher_emoji import caption, model_folder, vocabulary
from publisher_emoji.generate import generate, load_pipeline
from publisher_emoji.scorer import EmojiLabels, load_scorer
from publisher_emoji.shares import ShareOfImages, share
from publisher_erase.data import Encoders
from publisher_erase.params import EraseParams
from publisher_erase.plan import select, tokenise
from publisher_erase.rece import adversarial_rows, erase_map, gram
from publisher_erase.step import embed_rows
from publisher_erase.tensors import find_projections
from publisher_erase.uce import LowRank, edit_map, edit_weight

OBJECTS = {"cigarette": "pizza", "pistol": "ghost"}
STYLE, INSTEAD = "noto", "twemoji"
LISTED, STYLE_ROWS = 60, 24
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "erase-tradeoff.svg"
STRENGTHS = (3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True)
class Question:
    """One image to generate, and what the scorer should or should not see in it."""

    group: str
    prompt: str
    right: Callable[[EmojiLabels], bool]


@dataclass(frozen=True)
class Result:
    """Shares of one setting."""

    params: EraseParams
    shares: dict[str, ShareOfImages]
    drift: float


def names() -> tuple[list[str], list[str]]:
    """Return the objects to list under `keep` (neighbours of the erased ones first), and the others."""
    words, shuffle = vocabulary(), random.Random(4)
    near = [name for erased in OBJECTS for name in words.object(erased).near]
    rest = [name for name in words.object_names if name not in OBJECTS and name not in near]
    shuffle.shuffle(rest)
    return (near + rest)[:LISTED], (near + rest)[LISTED:]


def scope() -> Scope:
    """Return what a manifest would say: a caption for each object, the style's over some objects, what to keep."""
    generate, (listed, unlisted) = random.Random(4), names()
    others = [style for style in vocabulary().style_names if style != STYLE]
    objects = [
        Concept(id=name, name=name, label=name, prompts=(caption(name),), synonyms=vocabulary().object(name).synonyms)
        for name in OBJECTS
    ]
    rows = tuple(caption(name, STYLE) for name in random.Random(2).sample([*listed, *unlisted], STYLE_ROWS))
    style = Concept(id=STYLE, kind="style", name=STYLE, label=STYLE, prompts=rows)
    kept = tuple(caption(name, style) for name in listed for style in (None, *generate.sample(others, 2)))
    return Scope(concepts=(*objects, style), keep_prompts=kept)


def questions(wanted: Scope) -> list[Question]:
    """Return the same images for every setting."""
    words, generate = vocabulary(), random.Random(7)
    others = [style for style in words.style_names if style != STYLE]
    found = []
    for name in OBJECTS:
        shows = _shows(name)
        found += [Question("erased", caption(name, style), shows) for style in (None, *words.style_names)] * 3
        for synonym in words.object(name).synonyms:
            found += [Question("synonyms", caption(synonym, style), shows) for style in (None, *words.style_names)]
    listed, unlisted = names()
    fresh = [name for name in listed + unlisted if caption(name, STYLE) not in wanted.concepts[-1].prompts]
    found += [Question("style", caption(name, STYLE), _in_style(STYLE)) for name in generate.sample(fresh, 40)]
    for group, chosen in (("kept, listed", listed), ("kept, unlisted", unlisted)):
        for i, name in enumerate(chosen):
            style = (None, *others)[(i + i // len(others)) % (len(others) + 1)]
            found.append(Question(group, caption(name, style), _shows(name)))
            if style:
                found.append(Question(f"{group}: style", caption(name, style), _in_style(style)))
    return found


def _shows(name: str) -> Callable[[EmojiLabels], bool]:
    return lambda judgement: judgement.object == name


def _in_style(style: str) -> Callable[[EmojiLabels], bool]:
    return lambda judgement: judgement.style == style and judgement.object != "nothing"


class Bench:
    """The embedded model, edited and asked again and again."""

    def __init__(self, model: Model, steps: int) -> None:
        self.pipeline: StableDiffusionPipeline = load_pipeline()
        self.steps, self.scope = steps, scope()
        self.questions = questions(self.scope)
        self.encoders = Encoders(model, torch.device("cpu"))
        self.weights = {name: model.read("unet", name) for name in find_projections(model)}
        self.gram = gram(self.weights.values())

    def shares(self) -> dict[str, ShareOfImages]:
        """Return shares of right answers of the pipeline as it is. Equal prompts in one group differ by their seed."""
        prompts = list(dict.fromkeys((q.prompt, self._copy(i)) for i, q in enumerate(self.questions)))
        images = generate(self.pipeline, [prompt for prompt, _ in prompts], 77, steps=self.steps, guidance=3.0)
        judged = dict(zip(prompts, load_scorer().judge(images), strict=True))
        hits: dict[str, list[bool]] = {}
        for i, question in enumerate(self.questions):
            hits.setdefault(question.group, []).append(question.right(judged[question.prompt, self._copy(i)]))
        return {group: share(sum(rows), len(rows)) for group, rows in hits.items()}

    def inverted(self, edit: LowRank) -> ShareOfImages:
        """Count the images that show a concept again when the edited model gets the embeddings of RECE's formula.

        Whoever has the base model's projections can compute these; no text gives them.
        """
        asked = [(name, caption(name, style)) for name in OBJECTS for style in (None, *vocabulary().style_names)]
        embedded = self.encoders.embed([self.encoders.tokens(prompt) for _, prompt in asked])
        hidden = torch.stack([adversarial_rows(one.hidden, edit, self.gram, 0.1) for one in embedded]).float()
        empty = next(self.encoders.embed([self.encoders.tokens("")])).hidden.float()
        generated = self.pipeline(
            prompt_embeds=hidden,
            negative_prompt_embeds=empty.expand_as(hidden),
            num_inference_steps=self.steps,
            guidance_scale=3.0,
            generator=[torch.Generator().manual_seed(seed) for seed in range(len(hidden))],
            output_type="pt",
        ).images
        judged = load_scorer().judge(generated * 2 - 1)
        hits = [judgement.object == name for judgement, (name, _) in zip(judged, asked, strict=True)]
        return share(sum(hits), len(hits))

    def _copy(self, index: int) -> int:
        one = self.questions[index]
        return sum(q.prompt == one.prompt and q.group == one.group for q in self.questions[:index])

    def measure(self, params: EraseParams) -> Result:
        """Edit, ask, and put the weights back."""
        edit = self.edit(params)
        self._install(edit)
        shares = {**self.shares(), "inverted": self.inverted(edit)}
        self._install(LowRank.identity(edit.u.shape[0], edit.u))
        empty = next(self.encoders.embed([self.encoders.tokens("")])).hidden
        return Result(params, shares, float((edit.rows(empty) - empty).norm() / empty.norm()))

    def edit(self, params: EraseParams) -> LowRank:
        """Return the map of these parameters."""
        rows = embed_rows(params, tokenise(select(params, self.scope), self.encoders.tokens), self.encoders)
        scales = (params.lam * rows.mean_square(), params.erase_scale, params.preserve_scale)
        if params.method == "uce":
            return edit_map(rows, *scales)
        return erase_map(rows, self.gram, params.epochs, params.rho, scales, joint=params.joint)

    def _install(self, edit: LowRank) -> None:
        factors = edit.factors()
        for name, weight in self.weights.items():
            self.pipeline.unet.get_parameter(name).data = edit_weight(weight, factors)


def settings() -> list[EraseParams]:
    """Return what is compared."""
    base = EraseParams(targets={**OBJECTS, STYLE: INSTEAD}, preserve_scale=10)
    rece = base.model_copy(update={"method": "rece"})
    found = [method.model_copy(update={"preserve_scale": p}) for p in STRENGTHS for method in (base, rece)]
    others = {"joint": False}, {"epochs": 3}
    found += [rece.model_copy(update=change) for change in others]
    return found + [
        base.model_copy(update=change)
        for change in ({"targets": dict.fromkeys((*OBJECTS, STYLE), "")}, {"rows": "all"}, {"rows": "last-eos"})
    ]


GROUPS = (
    "erased",
    "synonyms",
    "style",
    "kept, listed",
    "kept, unlisted",
    "kept, listed: style",
    "kept, unlisted: style",
    "inverted",
)


def line(label: str, shares: dict[str, ShareOfImages], drift: float) -> str:
    """Return one row of the table."""
    cells = [
        f"{s['hits']}/{s['n']} ({100 * s['low']:.1f}-{100 * s['high']:.1f})" for s in map(shares.__getitem__, GROUPS)
    ]
    return "| " + " | ".join([label, *cells, f"{drift:.3f}"]) + " |"


def replaces(params: EraseParams) -> bool:
    """Return whether other words take the place of names, and not the empty prompt alone."""
    return params.targets == "auto" or any(params.targets.values())


def label(params: EraseParams) -> str:
    """Return a setting in a few words."""
    method = "UCE" if params.method == "uce" else f"RECE {params.epochs}{'' if params.joint else ' sequential'}"
    target = "" if replaces(params) else ", to the empty prompt"
    return f"{method}, {params.rows}, p {params.preserve_scale:g}, lam {params.lam:g}{target}"


def main(argv: Sequence[str]) -> None:
    """Print a table row for each setting, then generate the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8, help="DDIM steps (8)")
    parser.add_argument("--threads", type=int, default=2, help="of the processor (2)")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    with TemporaryDirectory() as folder:
        bench = Bench(_embedded(Path(folder)), options.steps)
        print("| setting | " + " | ".join(GROUPS) + " | drift |")
        print("|" + "---|" * (len(GROUPS) + 2))
        nothing = LowRank.identity(len(bench.gram), bench.gram)
        base = {**bench.shares(), "inverted": bench.inverted(nothing)}
        print(line("base model", base, 0.0), flush=True)
        results = []
        for params in settings():
            results.append(bench.measure(params))
            print(line(label(params), results[-1].shares, results[-1].drift), flush=True)
    FIGURE.write_text(figure(results), encoding="utf-8")


def _embedded(states: Path) -> Model:
    configs = read_configs(model_folder())
    anatomy = StableDiffusion1().recognise(configs)
    if anatomy is None:
        raise SystemExit("the embedded model is not recognised")
    return State(ModelFolder(model_folder(), anatomy, configs), (), states)


PANELS = (("erased", "asked for an erased object, got it"), ("style", "asked for the erased style, got it"))
LOST = (("kept, listed", "kept and listed: right object"), ("kept, unlisted", "not listed: right object"))
COLOURS = {"uce": "#1f6feb", "rece": "#d1570a"}
WIDTH, HEIGHT, LEFT = 250, 130, 46


def figure(results: Sequence[Result]) -> str:
    """Return four panels over the preserve scale, as SVG."""
    shown = [
        r
        for r in results
        if r.params.rows == "mean-pad" and r.params.lam == 1e-3 and r.params.epochs == 1 and r.params.joint
    ]
    shown = [r for r in shown if replaces(r.params)]
    size = f'width="{2 * (WIDTH + LEFT + 20)}" height="{2 * (HEIGHT + 50) + 24}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for i, (group, title) in enumerate((*PANELS, *LOST)):
        x, y = LEFT + (i % 2) * (WIDTH + LEFT + 20), 24 + (i // 2) * (HEIGHT + 50)
        parts += _panel(shown, group, title, x, y)
    y = 2 * (HEIGHT + 50) + 14
    for i, (method, colour) in enumerate(COLOURS.items()):
        parts.append(f'<text x="{LEFT + 70 * i}" y="{y}" fill="{colour}">{method.upper()}</text>')
    legend = "across: preserve scale p (grey: 10); bars: 95% Clopper-Pearson"
    parts.append(f'<text x="{LEFT + 150}" y="{y}">{legend}</text></svg>\n')
    return "\n".join(parts)


def _panel(results: Sequence[Result], group: str, title: str, left: int, top: int) -> list[str]:
    low = 0.0 if group in dict(PANELS) else 0.8
    parts = [f'<text x="{left}" y="{top - 6}" font-weight="bold">{title}</text>']
    parts.append(f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>')
    place = _x(10.0, left)
    parts.append(f'<line x1="{place}" x2="{place}" y1="{top}" y2="{top + HEIGHT}" stroke="#ccc" stroke-width="3"/>')
    for value in (low, (1 + low) / 2, 1.0):
        y = _y(value, low, top)
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{100 * value:.0f}%</text>')
    ticks = [(p, _x(p, left)) for p in STRENGTHS]
    parts += [f'<text x="{x}" y="{top + HEIGHT + 14}" text-anchor="middle">{p:g}</text>' for p, x in ticks]
    for method, colour in COLOURS.items():
        points = [(r.params.preserve_scale, r.shares[group]) for r in results if r.params.method == method]
        path = " ".join(f"{_x(p, left)},{_y(s['share'], low, top)}" for p, s in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for p, s in points:
            x = _x(p, left) + (-2 if method == "uce" else 2)
            y1, y2 = _y(s["low"], low, top), _y(s["high"], low, top)
            parts.append(f'<line x1="{x}" x2="{x}" y1="{y1}" y2="{y2}" stroke="{colour}" stroke-opacity="0.6"/>')
    return parts


def _x(p: float, left: int) -> float:
    return round(left + 14 + (WIDTH - 28) * STRENGTHS.index(p) / (len(STRENGTHS) - 1), 1)


def _y(value: float, low: float, top: int) -> float:
    return round(top + HEIGHT * (1 - (max(value, low) - low) / (1 - low)), 1)


if __name__ == "__main__":
    main(sys.argv[1:])
