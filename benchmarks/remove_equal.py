"""What an erasure costs until nothing is shown: ESD's loop beside `surgical`: `python benchmarks/remove_equal.py`.

Both take two objects (cigarette, pistol) out of the embedded model and are judged alike: 56 images, by name and by
synonym, none of which may show its object. ESD's loop (`remove.py` says how it is written) trains all of
cross-attention, a caption of either object in each step; it is asked every ten steps, and stops at the first look at
which nothing is shown. `surgical` is asked after whole runs. Judging is in nobody's seconds. One thread.

    python benchmarks/remove_equal.py --method esd --lr 1e-3 --seed 0
    python benchmarks/remove_equal.py --method surgical --with '{"surgical": {"init": "base", "steps": 80}}' --seed 0
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from copy import deepcopy

import torch
from remove import Esd
from remove_tradeoff import OBJECTS, Bench, prompts_of, read, weights_of

from publisher_emoji import vocabulary

LOOK, MOST = 10, 600
"""ESD's steps between two looks, and at the most."""


class Judged(Bench):
    """The bench, and how many of 56 images show what was to go."""

    def left(self) -> int:
        """Return the number of images that show their object: 14 by name and 14 by synonym for each."""
        total = 0
        for name in self.targets:
            other = [one for synonym in vocabulary().object(name).synonyms for one in prompts_of(synonym)][:14]
            total += self.hits(self.hardened, prompts_of(name) * 2, name, 77)[0]
            total += self.hits(self.hardened, other, name, 78)[0]
        return total


def esd(bench: Judged, lr: float, seed: int) -> None:
    """Train until nothing is shown, and tell of each look."""
    network = bench.hardened.unet
    own = read(bench.base, [prompt for name in bench.targets for prompt in prompts_of(name)])
    names = [name for name, _ in network.named_parameters() if ".attn2." in name]
    loop = Esd(network, deepcopy(network), (own, read(bench.base, [""])), names, 1.0, lr=lr, seed=seed)
    seconds, left = 0.0, bench.left()
    for done in range(LOOK, MOST + 1, LOOK):
        began = time.process_time()
        for _ in range(LOOK):
            loop.step()
        seconds += time.process_time() - began
        left = bench.left()
        print(f"ESD, lr {lr:g}, seed {seed}: {done} steps, {seconds:.1f} s, {left} of 56 shown", flush=True)
        if not left:
            break


def main(argv: Sequence[str]) -> None:
    """Erase in one way, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=["esd", "surgical"], default="esd")
    parser.add_argument("--lr", type=float, default=1e-3, help="of ESD (1e-3)")
    parser.add_argument("--with", dest="options", default="{}", help="further parameters of erase, as JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the training (0)")
    options = parser.parse_args(argv)
    options.keep, options.listed = None, 1
    torch.set_num_threads(1)
    if options.method == "esd":
        bench = Judged(OBJECTS, {})
        esd(bench, options.lr, options.seed)
    else:
        bench = Judged(OBJECTS, weights_of(options, OBJECTS))
    print(f"{options.method}: {bench.left()} of 56 shown")
    bench.asked(["hardened"])


if __name__ == "__main__":
    main(sys.argv[1:])
