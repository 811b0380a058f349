"""What a verification works with: the two models, the plugins' instances, and the setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from publisher.api import Attack, CheckRecord, Claim, Executor, Metric, Scorer
from publisher.model.digest import sha256_file, sha256_list
from publisher.verify.store import ImageStore


class Unmeasured(Exception):  # noqa: N818 - not an error of anybody: it becomes the verdict *unknown*
    """A check cannot be measured; the message is the reason in its record."""


_READ = (".safetensors", ".json", ".txt", ".model")


@dataclass(frozen=True)
class Arm:
    """A model under test: a diffusers folder that :func:`publisher.runtime.pipelines.load` can load."""

    folder: Path
    digest: str
    """sha256 that names its weights and configurations; images are stored under it."""

    @classmethod
    def of(cls, folder: Path) -> Arm:
        """Hash the files that loading can read; ``release/``, the card and weights in other formats do not matter."""
        inside = [path for path in folder.glob("*/*") if path.suffix in _READ and path.parent.name != "release"]
        files = [folder / "model_index.json", *inside]
        return cls(folder, sha256_list({path.relative_to(folder).as_posix(): sha256_file(path) for path in files}))


@dataclass(frozen=True)
class Arms:
    """The control arm and the treated one; both get the same requests."""

    base: Arm
    hardened: Arm


@dataclass(frozen=True)
class StepClaim:
    """A claim and the id of the step that makes it."""

    step: str
    claim: Claim


@dataclass(frozen=True)
class Tools:
    """Instances of the plugins that the checks name. What is missing makes its checks *unknown*."""

    attacks: Mapping[str, Attack[Any]]
    metrics: Mapping[str, Metric[Any]]
    scorers: Mapping[str, Scorer]
    scorer: str
    """Name of the scorer of checks that name none: the manifest's ``verify.scorer``."""
    executor: Executor


def _nothing(*_: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Setting:
    """Where images are drawn and kept, and who is told."""

    device: str
    """``"cpu"`` or ``"cuda"``."""
    dtype: str
    """Of the networks, such as ``"float32"``."""
    store: ImageStore = field(default_factory=ImageStore)
    progress: Callable[[int, int, str], None] = _nothing
    """Done, total, text; in images, of both models together."""
    check_end: Callable[[str, CheckRecord, float], None] = _nothing
    """Claim's id, the record, seconds since drawing ended."""
    warn: Callable[[str], None] = _nothing
