"""How the checks generate a small model on the CPU: one batch by all threads, or batches side by side.

    python benchmarks/generating.py

Prints milliseconds an image and the ratio, for the embedded model as ``manifests/quickstart.yaml`` generates it (8
steps, guidance 3, batches of 32), and for waiting threads that sleep or spin (``OMP_WAIT_POLICY``).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

BATCHES, SIZE = 8, 32


def measure() -> tuple[float, float]:
    """Return milliseconds an image: one batch at a time, and side by side."""
    from publisher.api import ImageRequest
    from publisher.builtin.families import StableDiffusion1
    from publisher.evaluate.images import GenerateTask, perform
    from publisher.model.folder import read_configs
    from publisher_emoji import caption, model_folder, vocabulary

    anatomy = StableDiffusion1().recognise(read_configs(model_folder()))
    assert anatomy is not None  # noqa: S101
    names = vocabulary().object_names
    batches = tuple(
        tuple(
            ImageRequest(concept="", prompt=caption(names[(i + SIZE * k) % len(names)]), seed=i, steps=8, guidance=3.0)
            for i in range(SIZE)
        )
        for k in range(BATCHES)
    )
    found = []
    for workers in (1, len(os.sched_getaffinity(0))):
        perform(GenerateTask(model_folder(), anatomy, "cpu", "float32", workers, batches[:2]))  # loads and warms up
        start = time.monotonic()
        generated = perform(GenerateTask(model_folder(), anatomy, "cpu", "float32", workers, batches))
        found.append(1000 * (time.monotonic() - start) / (BATCHES * SIZE))
        assert all(one.images is not None for one in generated), generated  # noqa: S101
    return found[0], found[1]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        together, apart = measure()
        print(f"{sys.argv[1]:8} {together:8.1f} {apart:8.1f} {together / apart:8.2f}")
    else:
        print("waiting  together     apart    ratio   (ms an image)", flush=True)
        for policy in ("passive", "active"):
            environment = {**os.environ, "OMP_WAIT_POLICY": policy}
            subprocess.run([sys.executable, __file__, policy], env=environment, check=True)
