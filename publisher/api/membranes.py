"""Membranes (SPM, arXiv 2312.16145) as data: the file, the arithmetic, and what a package says about them.

    y = W x + sum_c gamma_c s_c up_c down_c x                                               (eq. 1 and 9)

    W       (m, n)  a Linear or 1x1 convolution of a transformer of the denoiser: the *host*
    down_c  (r, n)  the regulator of concept c (v_reg)
    up_c    (m, r)  its erasing signal (v_sig)
    s_c             alpha / r
    gamma_c         the permeability: 1 in merged weights, a function of the prompt in a pipeline

A file is what the authors' code writes, a kohya LoRA of the UNet alone: for each host ``<stem>.lora_down.weight``,
``<stem>.lora_up.weight`` and ``<stem>.alpha``, where the stem is ``lora_unet_`` and the module's path with ``_`` for
``.``; metadata ``prompts``, ``rank``, ``alpha``. Importing this module imports no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from publisher.api.artifacts import safetensors_bytes
from publisher.api.models import ModelInfo
from publisher.api.params import Params
from publisher.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FOLDER = "membranes"
"""Where membranes lie below ``release/``."""
INDEX = f"{FOLDER}/index.json"
PREFIX = "lora_unet_"
STOP_WORDS = ("a", "an", "and", "at", "by", "for", "from", "in", "is", "of", "on", "or", "the", "to", "with")
_HOST = re.compile(r"(?P<transformer>(?:(?:down|up)_blocks\.\d+|mid_block)\.attentions\.\d+)\.(?P<rest>.+)\.weight")
_PER_BLOCK, _PER_TRANSFORMER = 10, 2


class Transport(Params):
    """Facilitated transport: how far a membrane opens for a prompt (the permeability gamma, eq. 10 and 11).

    ``score = max(cosine, overlap)``; then ``gamma = strength * score**power * gate(score)``, and all of a prompt's
    gammas are scaled down together where their sum exceeds ``cap``.
    """

    score: Literal["max", "cosine", "overlap"] = "max"
    """``cosine``: of the flattened text states of prompt and concept. ``overlap``: share of the concept's tokens that
    are in the prompt. ``max``, the larger one, is the paper's."""
    power: Literal[1, 2] = 1
    """1: as in the paper. 2: as the authors' code computes (it multiplies both factors by gamma)."""
    strength: float = Field(default=1.0, ge=0, le=10)
    """Multiplies every permeability; the paper doubles it for styles and nudity."""
    threshold: float = Field(default=0.0, ge=0, le=1)
    """Below this score a membrane stays shut: the prompt gives the base model's image bit for bit. The paper has none,
    and its cosine is never 0."""
    softness: float = Field(default=0.0, ge=0, le=1)
    """Width of a ramp above the threshold from shut to open; 0: a step."""
    cap: float | None = Field(default=None, gt=0, le=100)
    """Largest sum of one prompt's permeabilities; short prompts open many membranes at once."""
    stop_words: tuple[str, ...] = STOP_WORDS
    """Words that do not count in the overlap (of a concept that has others). Empty: every token counts, as in the
    paper."""


class MembraneEntry(Params):
    """One membrane of a package."""

    concept: str
    """Id of the concept in the manifest."""
    file: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}\.safetensors$")
    """Beside the index."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the file."""
    words: tuple[str, ...] = Field(min_length=1)
    """Name and aliases: what the overlap is counted with."""
    texts: tuple[str, ...] = Field(min_length=1)
    """What the prompt's text states are compared with."""
    rank: int = Field(ge=1)
    strength: float = Field(default=1.0, ge=0, le=10)
    """Multiplies this membrane's permeability."""
    trained_on: str = ""
    """Digest of the model that it was trained on; empty: unknown (a file of somebody else's)."""


class MembraneIndex(Params):
    """``release/membranes/index.json``: what the pipeline attaches, and how it opens."""

    membranes: Literal[1] = 1
    """Version of this schema."""
    mode: Literal["bundle", "merge"]
    """``bundle``: the weights are untouched, the pipeline attaches the membranes. ``merge``: they are in the weights
    already, with constant permeability; a pipeline must not attach them again."""
    transport: Transport = Transport()
    entries: tuple[MembraneEntry, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Host:
    """A layer that carries a branch, from the header of its weight."""

    module: str
    """Path of the module in the denoiser, ``"mid_block.attentions.0.proj_in"``."""
    shape: tuple[int, ...]
    """Of its weight: ``(m, n)``, or ``(m, n, 1, 1)``."""

    @property
    def stem(self) -> str:
        """Its name in a membrane file."""
        return PREFIX + self.module.replace(".", "_")


@dataclass(frozen=True)
class Branch:
    """The side branch of one host, convolutions flattened."""

    down: Tensor
    """``(r, n)``."""
    up: Tensor
    """``(m, r)``."""
    alpha: float
    conv: bool = False
    """The host is a 1x1 convolution: the file has two further dimensions of 1."""

    @property
    def rank(self) -> int:
        """R."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """Alpha / r."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class Membrane:
    """One membrane file: all branches of one concept (or of several that were trained as one)."""

    branches: Mapping[str, Branch]
    """Stem -> branch, sorted."""
    prompts: tuple[str, ...] = ()
    """What it erases, in words; empty where the file does not say, and then it cannot open by the prompt."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Everything else that the file says about itself."""

    @property
    def rank(self) -> int:
        """The largest of all branches."""
        return max(branch.rank for branch in self.branches.values())

    @property
    def parameters(self) -> int:
        """Elements of all factors."""
        return sum(branch.down.numel() + branch.up.numel() for branch in self.branches.values())


class MembraneFileError(ModelError):
    """A membrane file is malformed, or does not fit the model."""


def find_hosts(model: ModelInfo) -> dict[str, Host]:
    """Stem -> host: every Linear and 1x1 convolution below each transformer of the denoiser, from headers alone.

    192 for SD 1.x and 2.x, 722 for SDXL: each transformer has 2 (``proj_in``, ``proj_out``) and 10 a block (q, k, v and
    out of two attentions, two of the feed-forward layer).

    Raises:
        ModelError: another number than the architecture has.
    """
    denoiser = model.anatomy.denoiser
    hosts, transformers = {}, set()
    for name, info in model.tensors(denoiser).items():
        found = _HOST.fullmatch(name)
        if found and len(info.shape) in (2, 4):
            host = Host(name.removesuffix(".weight"), info.shape)
            hosts[host.stem] = host
            transformers.add(found["transformer"])
    expected = _PER_TRANSFORMER * len(transformers) + _PER_BLOCK * model.anatomy.cross_attention
    if len(hosts) != expected or not hosts:
        raise ModelError(
            f"the denoiser has {len(hosts)} layers that can carry a membrane, its architecture says {expected}",
            where=denoiser,
            hint="The layers may have other names or be wrapped by an adapter; save the plain model.",
        )
    return dict(sorted(hosts.items()))


def misfits(membrane: Membrane, hosts: Mapping[str, Host]) -> list[str]:
    """Why a membrane cannot be put on these hosts, one sentence a layer; empty: it fits.

    A membrane may leave hosts out. A 1x1 convolution and a linear layer of the same width are told apart.
    """
    problems = []
    for stem, branch in membrane.branches.items():
        host = hosts.get(stem)
        if host is None:
            problems.append(f"{stem}: the model has no such layer")
            continue
        m, n = branch.up.shape[0], branch.down.shape[1]
        if (m, n) != host.shape[:2]:
            problems.append(f"{stem}: made for a layer {m} x {n}, the model's is {host.shape[0]} x {host.shape[1]}")
        elif branch.conv != (len(host.shape) == 4):
            kinds = ("a linear layer", "a convolution")
            problems.append(f"{stem}: made for {kinds[branch.conv]}, the model's is {kinds[not branch.conv]}")
    return problems


def require_fit(membrane: Membrane, hosts: Mapping[str, Host], where: str) -> None:
    """Refuse a membrane of another architecture before anything is touched.

    Raises:
        MembraneFileError: with the first problems.
    """
    problems = misfits(membrane, hosts)
    if problems:
        more = f"\n... and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise MembraneFileError(
            f"the membrane does not fit this model: {len(problems)} of {len(membrane.branches)} layers differ",
            where=where,
            hint="\n".join(problems[:3]) + more + "\nMembranes go from one model to another of the same family only.",
        )


def read_membrane(path: Path) -> Membrane:
    """Read a membrane file: the authors', ours, or any kohya LoRA of a UNet without text encoder parts.

    Raises:
        MembraneFileError: not safetensors, keys or shapes that are none of a membrane's, NaN or infinity.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise MembraneFileError(f"cannot be read as safetensors: {error}", where=str(path)) from error
    return parse_membrane(tensors, metadata, str(path))


def parse_membrane(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> Membrane:
    """The content of a membrane file.

    Args:
        tensors: of the file.
        metadata: of the file.
        where: what to call the file in errors.

    Raises:
        MembraneFileError: see :func:`read_membrane`.
    """
    stems = sorted({name.split(".", maxsplit=1)[0] for name in tensors})
    if not stems:
        raise MembraneFileError("holds no tensor", where=where)
    wanted = {f"{stem}.{part}" for stem in stems for part in ("lora_down.weight", "lora_up.weight", "alpha")}
    odd = sorted(set(tensors) ^ wanted) or [stem for stem in stems if not stem.startswith(PREFIX)]
    if odd:
        raise MembraneFileError(
            f"is no membrane: {odd[0]!r} is {'missing' if odd[0] in wanted else 'none of its tensors'}",
            where=where,
            hint=f"Each layer needs {PREFIX}*.lora_down.weight, .lora_up.weight and .alpha.",
        )
    branches = {stem: _branch(tensors, stem, where) for stem in stems}
    prompts = _prompts(metadata, where)
    return Membrane(branches, prompts, {key: value for key, value in sorted(metadata.items()) if key not in _OWN})


_OWN = ("alpha", "prompts", "prompts_json", "rank")


def _branch(tensors: Mapping[str, Tensor], stem: str, where: str) -> Branch:
    down, up = tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"]
    alpha = tensors[f"{stem}.alpha"]
    conv = down.ndim == 4
    if down.ndim != up.ndim or down.ndim not in (2, 4) or down.shape[0] != up.shape[1] or not down.numel():
        raise MembraneFileError(
            f"{stem}: factors {tuple(up.shape)} and {tuple(down.shape)} do not go together", where=where
        )
    if conv and (down.shape[2:] != (1, 1) or up.shape[2:] != (1, 1)):
        raise MembraneFileError(f"{stem}: a convolution of {tuple(down.shape[2:])}, only 1x1 is supported", where=where)
    if not (down.isfinite().all() and up.isfinite().all() and alpha.numel() == 1 and alpha.isfinite().all()):
        raise MembraneFileError(f"{stem}: NaN, infinity, or an alpha that is no number", where=where)
    rank = down.shape[0]
    value = float(alpha) or float(rank)  # 0 means the rank, as the authors' code has it
    return Branch(down.reshape(rank, -1), up.reshape(-1, rank), value, conv)


def _prompts(metadata: Mapping[str, str], where: str) -> tuple[str, ...]:
    if "prompts_json" not in metadata:  # the authors' own: joined by commas, nothing escaped
        return tuple(part.strip() for part in metadata.get("prompts", "").split(",") if part.strip())
    try:
        found = json.loads(metadata["prompts_json"])
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
        raise MembraneFileError("its metadata prompts_json is no list of texts", where=where)
    return tuple(found)


def membrane_tensors(membrane: Membrane, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The tensors of a file, by their kohya names.

    Args:
        membrane: to be written.
        dtype: of all tensors, alpha too; None: that of each factor.
    """
    import torch

    found = {}
    for stem, branch in membrane.branches.items():
        kind = dtype or branch.down.dtype
        tail = (1, 1) if branch.conv else ()
        found[f"{stem}.lora_down.weight"] = branch.down.to(kind).reshape(*branch.down.shape, *tail)
        found[f"{stem}.lora_up.weight"] = branch.up.to(kind).reshape(*branch.up.shape, *tail)
        found[f"{stem}.alpha"] = torch.tensor(branch.alpha, dtype=kind)
    return found


def membrane_bytes(membrane: Membrane, dtype: torch.dtype | None = None) -> bytes:
    """A membrane file. Equal membranes give equal bytes; the authors' code and diffusers read it.

    The metadata has the authors' three keys, ``prompts`` with commas in a prompt replaced by spaces; ``prompts_json``
    says them exactly.
    """
    alphas = {branch.alpha for branch in membrane.branches.values()}
    plain = ",".join(" ".join(prompt.replace(",", " ").split()) for prompt in membrane.prompts)
    metadata = {
        **membrane.metadata,
        "prompts": plain,
        "prompts_json": json.dumps(list(membrane.prompts), ensure_ascii=True),
        "rank": str(membrane.rank),
        "alpha": str(float(max(alphas))),
    }
    return safetensors_bytes(membrane_tensors(membrane, dtype), metadata)


def weight_change(branches: Sequence[tuple[float, Branch]], shape: Sequence[int]) -> Tensor:
    """``sum_c gamma_c s_c up_c down_c``, exactly: no cross terms between membranes.

    Args:
        branches: permeability and branch of every membrane on one host.
        shape: of the host's weight, ``(m, n)`` or ``(m, n, 1, 1)``.

    Returns:
        float64, of that shape.
    """
    import torch

    change = torch.zeros(tuple(shape[:2]), dtype=torch.float64)
    for gamma, branch in branches:
        change.addmm_(branch.up.double(), branch.down.double(), alpha=gamma * branch.scale)
    return change.reshape(tuple(shape))


def bundled(membranes: Sequence[tuple[float, Membrane]]) -> Membrane:
    """Several membranes as one ordinary LoRA of fixed strength: factors side by side, rank and alpha the sum of ranks.

    Its change of every weight is the exact sum of theirs. A loader that knows one permeability a file (the authors')
    opens all of them together; plain diffusers users get the fixed strengths.

    Args:
        membranes: each with its permeability.

    Raises:
        MembraneFileError: none given, or made for different kinds of layers.
    """
    import torch

    if not membranes:
        raise MembraneFileError("there is no membrane to bundle")
    stems = sorted({stem for _, membrane in membranes for stem in membrane.branches})
    width = sum(membrane.rank for _, membrane in membranes)
    branches = {}
    for stem in stems:
        parts = [(gamma, membrane.branches[stem]) for gamma, membrane in membranes if stem in membrane.branches]
        if len({(part.conv, part.up.shape[0], part.down.shape[1]) for _, part in parts}) > 1:
            raise MembraneFileError(f"{stem}: the membranes were made for different models")
        down = torch.cat([part.down.float() for _, part in parts])
        up = torch.cat([part.up.float() * (gamma * part.scale) for gamma, part in parts], dim=1)
        lacking = width - down.shape[0]  # peft wants one rank and one alpha for all layers
        down = torch.cat([down, down.new_zeros(lacking, down.shape[1])])
        up = torch.cat([up, up.new_zeros(up.shape[0], lacking)], dim=1)
        branches[stem] = Branch(down, up, float(width), parts[0][1].conv)
    prompts = tuple(dict.fromkeys(prompt for _, membrane in membranes for prompt in membrane.prompts))
    return Membrane(branches, prompts)
