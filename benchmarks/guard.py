"""What a freeze mask saves whoever trains under it: `python benchmarks/guard.py`.

Full fine-tuning by AdamW in float32 on noise, without a guard and under random masks of 30% and 70% of the parameters
(whole tensors, no vectors), on the embedded model (64 pixels) and on a denoiser with the 686 tensors of Stable
Diffusion 1.5 and channels 32/64/128/128 (128 pixels), batch 4, one thread.

Printed: megabytes of gradients and of Adam's two moments (counted); peak memory of a process of its own above what it
had before the first step; processor milliseconds of a step, the cases in turn in one process, the ratio a median over
rounds. Then what the guard itself costs: milliseconds to model it, of its look at each step, and to compare all bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

STEPS, WARM, BATCH = 12, 2, 4
MODELS = ("embedded", "narrow")
SHARES = (0.0, 0.3, 0.7)


def denoiser(model: str) -> Any:
    """Return the network that is trained."""
    if model == "embedded":
        from publisher_emoji.generate import load_pipeline

        return load_pipeline().unet.train()
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64, 128, 128), cross_attention_dim=64, attention_head_dim=8
    ).train()


def mask_of(unet: Any, share: float) -> Any:
    """Return a random mask, as a package would bring it."""
    import torch

    from publisher.api.freeze_mask import (
        Candidate,
        FreezeMask,
        FrozenTensor,
        Share,
        architecture_sha256,
        digests,
        random_mask,
    )

    tensors = {name: tensor.detach() for name, tensor in unet.named_parameters()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    candidates = {name: Candidate(shape=shape) for name, shape in shapes.items() if len(shape) > 1}
    total = sum(tensor.numel() for tensor in tensors.values())
    frozen = random_mask(candidates, round(share * total), torch.Generator().manual_seed(0))
    return FreezeMask(
        component="unet",
        model="0" * 64,
        architecture=architecture_sha256(shapes),
        recipe={},
        tensors=Share(frozen=len(frozen), total=len(tensors)),
        parameters=Share(frozen=sum(tensors[name].numel() for name in frozen), total=total),
        candidates=candidates,
        frozen=tuple(
            FrozenTensor.parse({"name": name, "shape": shapes[name], "sha256": digests(tensors[name])})
            for name in sorted(frozen)
        ),
    )


class Case:
    """A network and its optimizer.

    Args:
        model: one of ``MODELS``.
        share: of the parameters that is frozen; 0: no guard.
    """

    def __init__(self, model: str, share: float) -> None:
        import torch

        from publisher.safeguards.freeze_mask.guard.guard import Guard

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.unet, self.guard, self.arming = denoiser(model), None, 0.0
        self.trained = list(self.unet.parameters())
        if share:
            mask = mask_of(self.unet, share)
            began = time.process_time()
            self.guard = Guard(self.unet, mask, every=10**9)
            self.arming = 1000 * (time.process_time() - began)
            self.trained = self.guard.parameters()
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5)
        config = self.unet.config
        self.x = torch.randn(BATCH, config.in_channels, config.sample_size, config.sample_size)
        self.rest = torch.arange(BATCH), torch.randn(BATCH, 32, config.cross_attention_dim)

    def step(self) -> tuple[float, float]:
        """Make a step; return processor milliseconds, and megabytes of gradients."""
        import torch
        from torch.nn import functional as F

        began = time.process_time()
        torch.autograd.backward(F.mse_loss(self.unet(self.x, *self.rest).sample, self.x))
        self.optimizer.step()
        spent = 1000 * (time.process_time() - began)
        gradients = sum(one.grad.nbytes for one in self.trained if one.grad is not None) / 1e6
        self.optimizer.zero_grad()
        return spent, gradients


def memory(model: str, share: float) -> dict[str, float]:
    """Measure one case, alone in this process."""
    case = Case(model, share)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gradients = max(case.step()[1] for _ in range(WARM))
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1e3
    adam = sum(kept.nbytes for state in case.optimizer.state.values() for kept in state.values()) / 1e6
    found = {"gradients": gradients, "adam": adam, "peak": peak}
    if case.guard is not None:
        found |= {"model": case.arming, "look": _median(case.guard.before_step), "check": _median(case.guard.check)}
    return found


def times(model: str) -> list[float]:
    """Time a step of every case, in turn in this process."""
    cases = [Case(model, share) for share in SHARES]
    rounds = [[case.step()[0] for case in cases] for _ in range(WARM + STEPS)][WARM:]
    plain = statistics.median(one[0] for one in rounds)
    return [plain * statistics.median(one[i] / one[0] for one in rounds) for i in range(len(cases))]


def _median(call: Callable[[], None]) -> float:
    spent = []
    for _ in range(5):
        began = time.process_time()
        call()
        spent.append(1000 * (time.process_time() - began))
    return statistics.median(spent)


def run(model: str, *what: str) -> Any:
    """Run a measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--case", model, *what],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def show(model: str) -> None:
    """Print the table of one model."""
    print(f"\n{model:8} gradients        Adam             peak             step              model   look  all bytes")
    found = [run(model, str(share)) | {"step": step} for share, step in zip(SHARES, run(model), strict=True)]
    for share, one in zip(SHARES, found, strict=True):
        parts = [f"{share:7.0%} "]
        for key, unit in (("gradients", "MB"), ("adam", "MB"), ("peak", "MB"), ("step", "ms")):
            parts.append(f"{one[key]:6.1f} {unit} {one[key] / found[0][key]:4.2f}x ")
        if share:
            parts.append(f"{one['model']:6.1f} {one['look']:6.2f} {one['check']:6.1f} ms")
        print(" ".join(parts), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a freeze mask saves.")
    parser.add_argument("--case", nargs="+", help=argparse.SUPPRESS)
    case = parser.parse_args().case
    if case:
        print(json.dumps(memory(case[0], float(case[1])) if case[1:] else times(case[0])))
    else:
        for model in MODELS:
            show(model)


if __name__ == "__main__":
    main()
