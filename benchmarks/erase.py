"""What an erasure costs at the size of Stable Diffusion 1.4: `python benchmarks/erase.py`, `--device cuda` for a GPU.

Random weights of the true shapes: the 32 key and value projections of the UNet and a text encoder of the CLIP-L
configuration (cost does not depend on values; rounding errors do). Prompts are random token ids of 77 positions, two
content tokens for a concept, none for its target and for the one retained prompt.

"Naive" is the published formula layer by layer in float32: for each layer and text all 77 outer products, materialised,
then an inverse; for each concept and epoch the sum over all layers and an inverse. Each text is encoded once, which is
kinder than the authors' code (once for each layer). It runs once, and not at all with `--no-naive`; the rest is the
median of `--repeats` runs. One thread; seconds are of the processor (on a GPU: milliseconds of the clock).

`--family flux` is about the two weights by which text enters FLUX.1: the rows' (3072 x 4096) and the pooled vector's
(3072 x 768), random, in bfloat16, with 60 random rows to take away and 600 to keep. No text is encoded. "Naive" is
UCE's published loop: an outer product for each row, added up in float32, then an inverse. The published script for FLUX
fits `W' c = W g + b`, and the layer adds b once more; here the bias is left out on both sides, or nothing could be
compared. Differences to float64 are before the rounding to bfloat16.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from torch import Tensor

from publisher_erase.data import Embedding, RowRule, stack_rows
from publisher_erase.rece import erase_map, gram
from publisher_erase.uce import LowRank, Rows, edit_weight, primal_map

WIDTHS = [320] * 5 + [640] * 5 + [1280] * 6
POSITIONS, BOS, EOS = 77, 49406, 49407
SCALES, RHO = (0.1, 1.0, 0.1), 0.1
STAGES = ("encode", "Gram", "solve", "write")
ENTRIES = {"rows, 3072 x 4096": (3072, 4096), "pooled, 3072 x 768": (3072, 768)}
ERASED, RETAINED = 60, 600
"""Rows of one edit at FLUX.1's entries."""


class Clock:
    """Seconds by stage: processor time, or the clock's after waiting for the GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent: dict[str, float] = {}

    def now(self) -> float:
        """Return the seconds from some beginning."""
        if self.device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        began = self.now()
        yield
        self.spent[name] = self.spent.get(name, 0.0) + self.now() - began


class Problem:
    """Weights, encoder and prompts of one run."""

    def __init__(self, concepts: int, device: torch.device) -> None:
        torch.manual_seed(0)
        config = transformers.CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=POSITIONS,
            projection_dim=768,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
        self.encoder = transformers.CLIPTextModel(config).eval().requires_grad_(requires_grad=False).to(device)
        self.weights = [torch.randn(width, 768, device=device) / 768**0.5 for width in WIDTHS for _ in "kv"]
        self.prompts = [torch.randint(1000, 40000, (2,)).tolist() for _ in range(concepts)]
        self.concepts, self.device = concepts, device

    @torch.inference_mode()
    def embed(self) -> list[Embedding]:
        """Embed the concepts, then the empty prompt, in one batch."""
        contents: list[list[int]] = [*self.prompts, []]
        ids = [[BOS, *words, *[EOS] * (POSITIONS - 1 - len(words))] for words in contents]
        hidden = self.encoder(torch.tensor(ids, device=self.device)).last_hidden_state.double()
        return [Embedding(rows, len(words) + 2) for rows, words in zip(hidden, contents, strict=True)]


def rows_of(texts: Sequence[Embedding], rule: RowRule) -> Rows:
    """Return rows of every concept towards the empty prompt, which is kept too."""
    *concepts, empty = texts
    return stack_rows([[(concept, empty)] for concept in concepts], [empty], rule)


def ours(problem: Problem, epochs: int, rule: RowRule, clock: Clock) -> tuple[list[Tensor], LowRank]:
    """Run the step's own path; epochs as published, one on top of the other."""
    with clock.stage("encode"):
        texts = problem.embed()
    with clock.stage("Gram"):
        matrix = gram(problem.weights, problem.device) if epochs else torch.empty(0)
    with clock.stage("solve"):
        edit = erase_map(rows_of(texts, rule), matrix, epochs, RHO, SCALES, joint=False)
        factors = edit.factors()
    with clock.stage("write"):
        written = [edit_weight(weight, factors) for weight in problem.weights]
    return written, edit


def exact(problem: Problem, epochs: int, rule: RowRule) -> list[Tensor]:
    """Run the same in float64 throughout, the text embeddings excepted."""
    wide = [weight.double() for weight in problem.weights]
    edit = erase_map(rows_of(problem.embed(), rule), gram(wide, problem.device), epochs, RHO, SCALES, joint=False)
    return [weight @ edit.dense() for weight in wide]


def naive(problem: Problem, epochs: int, clock: Clock) -> None:
    """See the module's text."""
    with clock.stage("naive"):
        *concepts, empty = (text.hidden.float() for text in problem.embed())
        edited = [_naive_edit(weight, concepts, empty) for weight in problem.weights]
        for _ in range(epochs):
            found = [_naive_attack(c, edited, problem.weights) for c in concepts]
            edited = [_naive_edit(weight, found, empty) for weight in edited]


def _naive_edit(weight: Tensor, concepts: Sequence[Tensor], empty: Tensor) -> Tensor:
    lam, e, p = SCALES
    left, right = lam * weight, lam * torch.eye(weight.shape[1], device=weight.device)
    for c, g, scale in (*((c, empty, e) for c in concepts), (empty, empty, p)):
        left = left + scale * ((g @ weight.T)[:, :, None] @ c[:, None, :]).sum(0)
        right = right + scale * (c[:, :, None] @ c[:, None, :]).sum(0)
    found: Tensor = left @ torch.linalg.inv(right)
    return found


def _naive_attack(c: Tensor, edited: Sequence[Tensor], original: Sequence[Tensor]) -> Tensor:
    left = RHO * torch.eye(c.shape[1], device=c.device)
    right = torch.zeros_like(left)
    for new, old in zip(edited, original, strict=True):
        left = left + new.T @ new
        right = right + new.T @ old
    found: Tensor = (torch.linalg.inv(left) @ right @ c.T).T
    return found


def memory(field: str) -> float:
    """Return MiB of resident memory: ``VmRSS`` now, or ``VmHWM`` at the most since :func:`forget_peak`."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) / 1024


def forget_peak() -> float:
    """Begin a new peak; MiB resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return memory("VmRSS")


def report(concepts: int, epochs: int, options: argparse.Namespace) -> None:
    """Print the lines of one size."""
    device = torch.device(options.device)
    problem = Problem(concepts, device)
    unit = 1000 if device.type == "cuda" else 1
    problem.embed()
    totals = {}
    runs: tuple[tuple[RowRule, int], ...] = (("mean-pad", 0), ("mean-pad", epochs), ("all", epochs))
    for rule, rounds in runs:
        before = forget_peak()
        clocks = [Clock(device) for _ in range(options.repeats)]
        for clock in clocks:
            written, _ = ours(problem, rounds, rule, clock)
        over = memory("VmHWM") - before
        spent = {stage: statistics.median(clock.spent[stage] for clock in clocks) * unit for stage in STAGES}
        wanted = exact(problem, rounds, rule)
        error = max(
            float((found - right).abs().max() / right.abs().max()) for found, right in zip(written, wanted, strict=True)
        )
        del written, wanted
        totals[rule, rounds] = sum(spent.values())
        cells = [f"{value:.2f}" for value in (*spent.values(), totals[rule, rounds])]
        method = f"RECE, {rounds} epochs" if rounds else "UCE"
        print(f"| {concepts} | {method}, {rule} | {' | '.join(cells)} | {over:.0f} | {error:.1e} |", flush=True)
    if options.naive:
        before, clock = forget_peak(), Clock(device)
        naive(problem, epochs, clock)
        spent_naive = clock.spent["naive"] * unit
        ratio = spent_naive / totals["all", epochs]
        method = f"RECE, {epochs} epochs, all, naive ({ratio:.0f} times ours)"
        print(f"| {concepts} | {method} | | | | | {spent_naive:.2f} | {memory('VmHWM') - before:.0f} | |", flush=True)


def report_entry(name: str, shape: tuple[int, int], options: argparse.Namespace) -> None:
    """Print the lines of one of FLUX.1's entries."""
    device = torch.device(options.device)
    unit = 1000 if device.type == "cuda" else 1
    torch.manual_seed(0)
    weight = (torch.randn(shape, device=device) / shape[1] ** 0.5).bfloat16()
    old, new, kept = (torch.randn(n, shape[1], device=device).double() for n in (ERASED, ERASED, RETAINED))
    rows = Rows(old, new, old.new_ones(ERASED), kept, kept.new_ones(RETAINED))
    exact_map = primal_map(rows, *SCALES)
    wanted = weight.double() + (weight.double() @ exact_map.u) @ exact_map.v
    for epochs in (0, 1):
        before = forget_peak()
        clocks = [Clock(device) for _ in range(options.repeats)]
        for clock in clocks:
            with clock.stage("solve"):
                edit = erase_map(rows, weight.double(), epochs, RHO, SCALES, thin=True)
                factors = edit.factors()
            with clock.stage("write"):
                edit_weight(weight, factors)
        over = memory("VmHWM") - before
        written = edit_weight(weight.float(), factors)
        spent = [statistics.median(clock.spent[stage] for clock in clocks) * unit for stage in ("solve", "write")]
        cells = " | ".join(f"{value:.2f}" for value in (*spent, sum(spent)))
        method = f"RECE, {epochs} epochs" if epochs else "UCE"
        error = "" if epochs else f"{float((written.double() - wanted).abs().max() / wanted.abs().max()):.1e}"
        print(f"| {name} | {method} | {cells} | {over:.0f} | {error} |", flush=True)
    if options.naive:
        before, clock = forget_peak(), Clock(device)
        with clock.stage("naive"):
            found = _naive_entry(weight.float(), rows)
        over, off = memory("VmHWM") - before, float((found.double() - wanted).abs().max() / wanted.abs().max())
        print(f"| {name} | UCE, naive | | | {clock.spent['naive'] * unit:.2f} | {over:.0f} | {off:.1e} |", flush=True)


def _naive_entry(weight: Tensor, rows: Rows) -> Tensor:
    """Add up one outer product for each row, as the published loop does, then invert."""
    lam, e, p = SCALES
    left, right = lam * weight, lam * torch.eye(weight.shape[1], device=weight.device)
    pairs = [(c, g, e) for c, g in zip(rows.concepts.float(), rows.targets.float(), strict=True)]
    for c, g, scale in [*pairs, *((r, r, p) for r in rows.retain.float())]:
        left = left + scale * torch.outer(weight @ g, c)
        right = right + scale * torch.outer(c, c)
    found: Tensor = left @ torch.linalg.inv(right)
    return found


def main(argv: Sequence[str]) -> None:
    """Print one table for one and for ten concepts, or one for the entries of FLUX.1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--family", default="stable-diffusion", choices=("stable-diffusion", "flux"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--naive", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    if options.family == "flux":
        print("| entry | edit | solve | write | total | peak MiB over the weight | max difference to float64 |")
        print("|---|---|---|---|---|---|---|")
        for name, shape in ENTRIES.items():
            report_entry(name, shape, options)
        return
    print(f"| concepts | edit | {' | '.join(STAGES)} | total | peak MiB over the model | max difference to float64 |")
    print("|---|---|" + "---|" * (len(STAGES) + 3))
    for concepts, epochs in ((1, 3), (10, 1)):
        report(concepts, epochs, options)


if __name__ == "__main__":
    main(sys.argv[1:])
