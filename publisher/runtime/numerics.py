"""A fingerprint of a machine's arithmetic: where it differs, the last bits of a network's output can differ too."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version

LIBRARIES = ("torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Numerics:
    """What the last bits of a network's output depend on, besides the network and the number of threads."""

    libraries: tuple[tuple[str, str], ...]
    """Library and version, of those that compute."""
    device: str
    """Kind of device and what it is, such as ``"cpu AVX2"``."""
    probe: str
    """sha256 of the result of a fixed small computation on the device."""

    def difference(self, other: Numerics) -> str:
        """Return in words what differs from the numerics of another machine; empty: nothing does."""
        theirs = dict(other.libraries)
        for name, ours in self.libraries:
            if theirs.get(name) != ours:
                return f"{name} is {theirs.get(name, 'missing')} there and {ours} here"
        if self.device != other.device:
            return f"the device is {other.device!r} there and {self.device!r} here"
        return "" if self.probe == other.probe else "a fixed computation gives other last bits there than here"


@lru_cache(maxsize=4)
def numerics(device: str) -> Numerics:
    """Return the fingerprint of a device of this process, ``"cpu"`` or ``"cuda"``. Computed once a process."""
    return Numerics(tuple((name, version(name)) for name in LIBRARIES), device_name(device), _probe(device))


def device_name(device: str) -> str:
    """Return the kind of a device and what it is: a GPU's name, or the instructions that torch uses on this CPU."""
    import torch

    where = torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"{device} {where}"


def _probe(device: str) -> str:
    """Return the sha256 of what a block of a denoiser is made of: convolution, norm, attention. No random numbers."""
    import torch
    from torch.nn import functional

    def waves(*shape: int) -> torch.Tensor:
        count = int(torch.tensor(shape).prod())
        return torch.frac(torch.arange(count, dtype=torch.float64) * 0.6180339887498949).float().view(shape) - 0.5

    with torch.no_grad():
        pixels, kernel, weight = (waves(*shape).to(device) for shape in ((1, 16, 16, 16), (32, 16, 3, 3), (32, 96)))
        x = functional.silu(functional.group_norm(functional.conv2d(pixels, kernel, padding=1), 8))
        q, k, v = (x.flatten(2).transpose(1, 2) @ weight).chunk(3, dim=-1)
        out = functional.softmax(q @ k.transpose(1, 2) / 3.0, dim=-1) @ v
        return hashlib.sha256(out.cpu().numpy().tobytes()).hexdigest()
