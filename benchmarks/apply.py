"""Comparing weights from elsewhere with the base model's where they lie: time and memory, at the size of SD 1.5.

    python benchmarks/apply.py [--gigabytes 1.7] [--tensors 686]

Two safetensors files of float16 are made that differ in 32 tensors, as an edit of cross-attention does. Prints the wall
time of the comparison, that of reading both files, their ratio, and the largest memory of the process. The comparison
runs in a process of its own, after both files have been read once.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHANGED = 32
"""Tensors that differ: keys and values of the 16 cross-attention layers of SD 1.5."""


def write(path: Path, tensors: int, size: int, changed: int, seed: int) -> None:
    """Write a file of equal tensors, of which the last ones have other values."""
    import numpy as np

    header = {
        f"t{place:04}": {"dtype": "F16", "shape": [size], "data_offsets": [2 * size * place, 2 * size * (place + 1)]}
        for place in range(tensors)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for place in range(tensors):
            generator = np.random.default_rng([place, seed if place >= tensors - changed else 0])
            file.write(generator.standard_normal(size, dtype=np.float32).astype(np.float16).tobytes())


def measure(base: Path, other: Path) -> dict[str, float]:
    """Compare all tensors of two files."""
    import resource

    from publisher.api.header import read_header, read_spans
    from publisher_apply.comparing import Slice, compare

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    headers, spans = ([read(path) for path in (base, other)] for read in (read_header, read_spans))
    differences = [
        compare(
            Slice(other, headers[1][name], spans[1][name]),  # type: ignore[arg-type]
            Slice(base, headers[0][name], spans[0][name]),  # type: ignore[arg-type]
        )
        for name in headers[0]
    ]
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "changed": sum(one.changed > 0 for one in differences),
        "megabytes": (peak - before) / 1024,
    }


def reading(*paths: Path) -> float:
    """Return the seconds that reading the files takes, 16 MB at a time."""
    start = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass
    return time.perf_counter() - start


def main() -> None:
    """Make the files, compare them in another process, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.7)
    parser.add_argument("--tensors", type=int, default=686)
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(*given.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        base, other = Path(folder) / "base.safetensors", Path(folder) / "other.safetensors"
        size = int(given.gigabytes * 1e9 / 2 / given.tensors)
        write(base, given.tensors, size, CHANGED, 0)
        write(other, given.tensors, size, CHANGED, 1)
        reading(base, other)
        plain = min(reading(base, other) for _ in range(3))
        words = [sys.executable, __file__, "--measure", str(base), str(other)]
        found = [json.loads(subprocess.run(words, check=True, capture_output=True).stdout) for _ in range(3)]
        best = min(found, key=lambda one: one["seconds"])
        print(f"two files of {base.stat().st_size / 1e9:.2f} GB, {given.tensors} tensors, {best['changed']:.0f} differ")
        print(f"comparing {best['seconds']:.2f} s, reading both {plain:.2f} s, ratio {best['seconds'] / plain:.2f}")
        print(f"memory for it {best['megabytes']:.0f} MB")


if __name__ == "__main__":
    main()
