"""Where one-file checkpoints keep the tensors of a diffusers folder: name, rows and form. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SingleFilePlace:
    """Where, and how, a one-file checkpoint keeps a tensor of a diffusers folder."""

    name: str
    """Name of the tensor in the file."""
    start: int = 0
    """First row of it that is the folder's tensor."""
    rows: int | None = None
    """Rows of it, where it holds several of the folder's tensors behind each other; None: it holds this one alone."""
    form: Literal["same", "transposed", "convolution", "swapped"] = "same"
    """``convolution``: a matrix has two more axes of 1; ``swapped``: the halves of the first axis change places."""

    def shape(self, own: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the tensor in the file, of a tensor's shape in the folder."""
        if self.form == "transposed":
            return own[::-1]
        if self.form == "convolution":
            return (*own, 1, 1)
        return own if self.rows is None else (self.rows, *own[1:])


Places = dict[str, SingleFilePlace]
"""Name of a tensor in its component -> its place."""
