"""Which device and dtype a release computes with. The choice is made without torch, so that the plan can show it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from publisher.errors import PrerequisiteError

AUTO_DTYPE = {"cpu": "float32", "cuda": "bfloat16"}
"""bfloat16 has float32's range: the VAE of SDXL overflows in float16."""
LIBRARIES = ("torch", "diffusers", "transformers", "safetensors")


@dataclass(frozen=True)
class Device:
    """What ``auto`` stood for."""

    name: str
    """``"cpu"`` or ``"cuda"``."""
    dtype: str
    """Type of networks that are run; closed forms use float64."""

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}"


def choose(device: str, dtype: str) -> Device:
    """Resolve ``auto``: a GPU where torch can use one, else the CPU."""
    name = ("cuda" if has_cuda() else "cpu") if device == "auto" else device
    return Device(name, AUTO_DTYPE[name] if dtype == "auto" else dtype)


def has_cuda() -> bool:
    """Return whether torch was built with CUDA and the driver reports a device."""
    if version("torch").endswith("+cpu"):
        return False
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def require(device: Device) -> None:
    """Make sure that torch can use the device.

    Raises:
        PrerequisiteError: it cannot.
    """
    import torch

    if device.name == "cuda" and not torch.cuda.is_available():
        raise PrerequisiteError(
            "device cuda was asked for, but torch sees no GPU",
            hint=f"torch is {torch.__version__}. Install a CUDA build, or set 'device: cpu' in the manifest.",
        )


def versions() -> dict[str, str]:
    """Return versions of the libraries that results depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError as error:
            raise PrerequisiteError(f"{name} is not installed", hint=f"pip install {name}") from error
    return found
