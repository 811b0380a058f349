"""Which layers of a model carry branches, and whether a membrane fits them: from headers alone, without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher.api.families import Anatomy
from publisher.api.membranes.kohya_flux import is_fused, shares
from publisher.api.membranes.names import kohya_parts, stem_in
from publisher.api.membranes.parts import Host, Membrane, MembraneFileError
from publisher.api.models import ModelInfo
from publisher.errors import ModelError

_PER_BLOCK, _PER_TRANSFORMER = 10, 2
_WRAPPED = re.compile(r"\.(base_layer|lora_[A-Za-z_]+)(\.|$)")


def find_hosts(model: ModelInfo) -> dict[str, Host]:
    """Return stem -> host: every Linear and 1x1 convolution of the denoiser that can carry a branch, from headers.

    Raises:
        ModelError: the family has no hosts, this model has none, or others than its architecture.
    """
    model.anatomy.require(("membranes",), "a membrane")
    tensors = model.tensors(model.anatomy.denoiser)
    shapes = {name.removesuffix(".weight"): info.shape for name, info in tensors.items() if name.endswith(".weight")}
    return hosts_among(shapes, model.anatomy)


def hosts_among(shapes: Mapping[str, Sequence[int]], anatomy: Anatomy) -> dict[str, Host]:
    """Return stem -> host, sorted, of the layers of a denoiser.

    The family's :attr:`publisher.api.Anatomy.hosts` matches the names of their weights.

    Of a U-Net they are all below each transformer: 192 for SD 1.x and 2.x, 722 for SDXL. Each transformer has 2
    (``proj_in``, ``proj_out``) and 10 a block (q, k, v and out of two attentions, two of the feed-forward layer). The
    expression's group ``transformer`` is then the path of a transformer, ``block`` that of one of its blocks (empty
    outside of them), ``rest`` the layer; the number is checked.

    Of a diffusion transformer they are all inside its blocks, but those that make scales and shifts of the noise level.
    The expression then has no groups.

    Args:
        shapes: path of a layer -> shape of its weight; layers that are no hosts may be among them.
        anatomy: of the model.

    Raises:
        ModelError: there are no hosts, or others than the architecture has.
    """
    pattern = re.compile(anatomy.hosts)
    fitting = (path for path, shape in shapes.items() if len(shape) in (2, 4) and set(shape[2:]) <= {1})
    matches = {path: found for path in fitting if (found := pattern.fullmatch(f"{path}.weight"))}
    hosts = [Host(path, tuple(shapes[path]), anatomy.denoiser) for path in matches]
    expected, architecture = len(hosts), "its family knows them by other names"
    if "transformer" in pattern.groupindex:
        transformers = {found["transformer"] for found in matches.values()}
        blocks = {found["transformer"] + found["block"] for found in matches.values() if found["block"]}
        expected = _PER_TRANSFORMER * len(transformers) + _PER_BLOCK * len(blocks)
        architecture = f"{len(transformers)} transformers of {len(blocks)} blocks have {expected}"
    wrapped = next((host.module for host in hosts if _WRAPPED.search(host.module)), "")
    if len(hosts) != expected or wrapped or not hosts:
        raise ModelError(
            f"the denoiser has {len(hosts)} layers that can carry a membrane; "
            + (f"{wrapped!r} is part of an adapter" if wrapped else architecture),
            where=anatomy.denoiser,
            hint="The layers may have other names or be wrapped by an adapter; save the plain model.",
        )
    return {host.stem: host for host in sorted(hosts, key=lambda one: one.stem)}


@dataclass(frozen=True)
class Size:
    """What a branch is made for."""

    out_width: int
    """m."""
    in_width: int
    """n."""
    conv: bool


def sizes_of(membrane: Membrane) -> dict[str, Size]:
    """Return stem -> what its branch is made for."""
    return {
        stem: Size(branch.up.shape[0], branch.down.shape[1], branch.conv) for stem, branch in membrane.branches.items()
    }


def read_sizes(path: Path) -> dict[str, Size]:
    """Return the same from a file's header, without torch: enough to see whether it fits.

    Raises:
        MembraneFileError: not safetensors, or a layer without both factors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            shapes = kohya_parts({name: file.get_slice(name).get_shape() for name in names})
    except (OSError, SafetensorError) as error:
        raise MembraneFileError(f"cannot be read as safetensors: {error}", where=str(path)) from error
    found: dict[str, Size] = {}
    for stem in sorted({stem_in(name) for name in shapes}):
        up, down = shapes.get(f"{stem}.lora_up.weight", ()), shapes.get(f"{stem}.lora_down.weight", ())
        if len(up) < 2 or len(up) != len(down):
            raise MembraneFileError(f"is no membrane: {stem!r} has not both factors", where=str(path))
        parts = shares(stem, up[0], down[1]) if is_fused(stem) else [(stem, slice(0, up[0]))]
        found |= {name: Size(rows.stop - rows.start, down[1], conv=len(up) == 4) for name, rows in parts}
    return found


def misfits(sizes: Mapping[str, Size], hosts: Mapping[str, Host]) -> list[str]:
    """Tell why a membrane cannot be put on these hosts, one sentence a layer; empty: it fits.

    A membrane may leave hosts out. A 1x1 convolution and a linear layer of the same width are told apart.
    """
    problems = []
    for stem, size in sizes.items():
        host = hosts.get(stem)
        if host is None:
            problems.append(f"{stem}: the model has no such layer")
        elif (size.out_width, size.in_width) != host.shape[:2]:
            made, has = f"{size.out_width} x {size.in_width}", f"{host.shape[0]} x {host.shape[1]}"
            problems.append(f"{stem}: made for a layer {made}, the model's is {has}")
        elif size.conv != (len(host.shape) == 4):
            kinds = ("a linear layer", "a convolution")
            problems.append(f"{stem}: made for {kinds[size.conv]}, the model's is {kinds[not size.conv]}")
    return problems


def require_fit(membrane: Membrane | Mapping[str, Size], hosts: Mapping[str, Host], where: str) -> None:
    """Refuse a membrane of another architecture before anything is touched.

    Raises:
        MembraneFileError: with the first problems.
    """
    sizes = sizes_of(membrane) if isinstance(membrane, Membrane) else membrane
    problems = misfits(sizes, hosts)
    if problems:
        more = f"\n... and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise MembraneFileError(
            f"the membrane does not fit this model: {len(problems)} of {len(sizes)} layers differ",
            where=where,
            hint="\n".join(problems[:3]) + more + "\nMembranes go from one model to another of the same family only.",
        )
