"""What a file or folder with weights is, and which tensors of the model it speaks of. Reads headers and texts alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from publisher.api import ModelError, ModelInfo, TensorInfo
from publisher.api.header import HeaderError, read_header, read_spans
from publisher.api.model_files import INDEX, model_parts, select_texts, select_weights, under
from publisher.api.weight_names import COUNTING
from publisher_apply.adapters import CONFIG, LoraChange, is_adapter, read_adapter
from publisher_apply.comparing import Slice
from publisher_apply.names import ComponentNames
from publisher_apply.params import ForeignWeights

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
ADAPTER_FILES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
COMPONENT_FILES = ("diffusion_pytorch_model", "model")
SHOWN = 5
"""Names that an error lists."""
UNIMPORTANT = ("_diffusers_version", "_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")
"""Keys of a configuration that say who saved it, and nothing of what it computes."""


@dataclass(frozen=True)
class Source:
    """What one entry of ``from`` holds."""

    entry: ForeignWeights
    whole: Mapping[tuple[str, str], Slice] = field(default_factory=dict)
    """Component and tensor of the model -> the tensor that takes its place."""
    added: tuple[LoraChange, ...] = ()
    """Changes that are added to weights."""
    differences: tuple[str, ...] = ()
    """Configurations, parts and vocabularies that are not the base model's, one sentence each."""


def read_source(entry: ForeignWeights, path: Path, model: ModelInfo) -> Source:
    """Say what an entry is, and find the tensors that it is about.

    Args:
        entry: as the manifest has it.
        path: where it lies.
        model: the base model.

    Raises:
        ModelError: a pickle, no safetensors, or tensors that the model lacks or has in another shape.
    """
    names = [ComponentNames(one, model) for one in _ordered(model)]
    if entry.component is not None:
        names = [one for one in names if one.component == entry.component]
        if not names:
            hint = f"The model has: {', '.join(_ordered(model))}."
            raise ModelError(
                f"names the component {entry.component!r}, which has no weights", where=str(path), hint=hint
            )
    if path.is_dir():
        return _folder(entry, path, model, names)
    return _file(entry, path, names)


def _ordered(model: ModelInfo) -> list[str]:
    first = model.anatomy.denoiser
    return [first, *(one for one in model.components if one != first and model.tensors(one))]


def _file(entry: ForeignWeights, path: Path, names: Sequence[ComponentNames], config: Path | None = None) -> Source:
    header = _header(path)
    if is_adapter(header):
        return Source(entry, added=tuple(read_adapter(path, header, names, entry.scale, config)))
    if entry.scale != 1.0:
        raise ModelError("has whole tensors, and scale is for a LoRA alone", where=str(path), hint="Leave scale out.")
    return Source(entry, whole=_placed([path], names))


def _header(path: Path) -> dict[str, TensorInfo]:
    if path.suffix.lower() in PICKLED:
        raise ModelError("is a pickle, which can run code when it is read", where=str(path), hint=_conversion(path))
    try:
        return read_header(path)
    except HeaderError as error:
        raise ModelError(f"is no safetensors file: {error}", where=str(path)) from error


def _conversion(path: Path) -> str:
    """Return the command that converts a pickle in a process of its own that reaches no network."""
    code = (
        "import torch; from safetensors.torch import save_file; "
        f"d = torch.load({path.name!r}, weights_only=True, map_location='cpu'); d = d.get('state_dict', d); "
        f"save_file({{k: v.contiguous().clone() for k, v in d.items()}}, {path.stem + '.safetensors'!r})"
    )
    return (
        "Convert it once, where nothing can be lost, in a process without network, and name the new file:\n"
        f'  unshare --map-root-user --net python -c "{code}"'
    )


def _folder(entry: ForeignWeights, path: Path, model: ModelInfo, names: Sequence[ComponentNames]) -> Source:
    found = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    if INDEX in found:
        if entry.scale != 1.0:
            raise ModelError(
                "has whole tensors, and scale is for a LoRA alone", where=str(path), hint="Leave scale out."
            )
        with under(str(path)):
            return _pipeline(entry, path, found, model, names)
    adapters = [name for name in ADAPTER_FILES if name in found]
    if adapters:
        config = path / CONFIG if CONFIG in found else None
        return _file(entry, path / adapters[0], names, config)
    return _component(entry, path, found, model, names)


def _pipeline(
    entry: ForeignWeights, path: Path, found: set[str], model: ModelInfo, names: Sequence[ComponentNames]
) -> Source:
    parts, own = model_parts(_object(path, INDEX)), model_parts(model.config("model_index"))
    differences = [
        f"model_index.json has {name} as {_said(parts.get(name))}, the base model as {_said(own.get(name))}"
        for name in sorted(set(parts) | set(own))
        if parts.get(name) != own.get(name)
    ]
    whole: dict[tuple[str, str], Slice] = {}
    for one in names:
        if one.component not in parts:
            continue
        files = select_weights(found, one.component, parts, lambda name: _object(path, name))
        whole |= _placed([path / name for name in files if name.endswith(".safetensors")], [one], every=True)
    wanted = [one.component for one in names] if entry.component else list(own)
    texts = select_texts(found, parts)
    for component in wanted:
        if component in parts:
            differences += _text_differences(component, path, texts, model)
    return Source(entry, whole, differences=tuple(differences))


def _component(
    entry: ForeignWeights, path: Path, found: set[str], model: ModelInfo, names: Sequence[ComponentNames]
) -> Source:
    files = [
        file
        for stem in COMPONENT_FILES
        for file in sorted(found)
        if file == f"{stem}.safetensors" or (file.startswith(f"{stem}-") and file.endswith(".safetensors"))
    ]
    if not files:
        others = ", ".join(sorted(file for file in found if file.endswith((*PICKLED, ".safetensors")))[:SHOWN])
        hint = (
            f"It holds {others}: name one file."
            if others
            else "A folder has a model_index.json, a component's config.json and weights, or a LoRA."
        )
        raise ModelError("holds no weights under a name that is known", where=str(path), hint=hint)
    if entry.scale != 1.0:
        raise ModelError("has whole tensors, and scale is for a LoRA alone", where=str(path), hint="Leave scale out.")
    whole = _placed([path / file for file in files], names, every=True)
    components = sorted({component for component, _ in whole})
    differences: list[str] = []
    if "config.json" in found and len(components) == 1:
        differences = _config_differences(components[0], _object(path, "config.json"), model)
    return Source(entry, whole, differences=tuple(differences))


def _placed(
    paths: Sequence[Path], names: Sequence[ComponentNames], *, every: bool = False
) -> dict[tuple[str, str], Slice]:
    """Return the tensors of files by the model's tensors that they stand for.

    Args:
        paths: of the files.
        names: of the components that they may be of.
        every: the files hold all tensors of their component, and it is an error if one is missing.
    """
    where = str(paths[0] if len(paths) == 1 else paths[0].parent)
    headers = {path: _header(path) for path in paths}
    spans = {path: read_spans(path) for path in paths}
    keys = [key for header in headers.values() for key in header if not key.endswith(COUNTING)]
    if not keys:
        raise ModelError("holds no tensor", where=where)
    owners = {key: one for key in keys for one in names if one.claims(key)}
    bare = [key for key in keys if key not in owners]
    if bare:
        owner = _owner(bare, {k: i for h in headers.values() for k, i in h.items()}, names, where)
        owners |= dict.fromkeys(bare, owner)
    found: dict[tuple[str, str], Slice] = {}
    for path, header in headers.items():
        for key, info in header.items():
            if key.endswith(COUNTING):
                continue
            name = owners[key].tensor(key)
            place = (owners[key].component, name)
            if not name:
                _unknown([one for one in keys if not owners[one].tensor(one)], owners[key].component, where)
            if place in found:
                raise ModelError(f"has {place[0]}/{name} twice", where=where)
            _require_shape(key, info, owners[key].tensors[name], where)
            found[place] = Slice(path, info, spans[path][key])
    if every:
        _require_all(found, owners, where)
    return found


def _owner(
    keys: Sequence[str], infos: Mapping[str, TensorInfo], names: Sequence[ComponentNames], where: str
) -> ComponentNames:
    """Return the component that has all of these tensors, in their shapes where several have the names."""
    known = {one.component: sum(bool(one.tensor(key)) for key in keys) for one in names}
    whole = [one for one in names if known[one.component] == len(keys)]
    if not whole:
        best = max(names, key=lambda one: known[one.component])
        _unknown([key for key in keys if not best.tensor(key)], best.component, where)
    fitting = [one for one in whole if all(one.tensors[one.tensor(key)].shape == infos[key].shape for key in keys)]
    if len(fitting) > 1:
        several = ", ".join(one.component for one in fitting)
        raise ModelError(f"may be of several components: {several}", where=where, hint="Name one with component:")
    return (fitting or whole)[0]


def _unknown(keys: Sequence[str], component: str, where: str) -> None:
    shown = ", ".join(repr(key) for key in sorted(keys)[:SHOWN])
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    hint = "Was it made for another model, or is it of another component? Name that with component:"
    raise ModelError(
        f"has {len(keys)} tensors that {component} of the base model does not have: {shown}{more}",
        where=where,
        hint=hint,
    )


def _require_shape(key: str, info: TensorInfo, base: TensorInfo, where: str) -> None:
    if info.shape != base.shape:
        what = f"has {key!r} of shape {info.shape}, the base model {base.shape}"
        raise ModelError(what, where=where, hint="Was it made for another model?")


def _require_all(found: Mapping[tuple[str, str], Slice], owners: Mapping[str, ComponentNames], where: str) -> None:
    for one in {owner.component: owner for owner in owners.values()}.values():
        lacking = [name for name in one.tensors if (one.component, name) not in found and not name.endswith(COUNTING)]
        if lacking:
            what = f"lacks {len(lacking)} tensors of {one.component}: {', '.join(lacking[:SHOWN])}"
            raise ModelError(what, where=where, hint="It is incomplete; a file with some tensors is named by itself.")


def _said(part: tuple[str, str] | None) -> str:
    return ".".join(part) if part else "no part"


def _object(path: Path, name: str) -> dict[str, Any]:
    try:
        data = json.loads((path / name).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read as JSON: {error}", where=name) from error
    if not isinstance(data, dict):
        raise ModelError("must hold a JSON object", where=name)
    return data


def _config_differences(component: str, found: Mapping[str, Any], model: ModelInfo) -> list[str]:
    base = model.config(component)
    keys = sorted(key for key in {*found, *base} - set(UNIMPORTANT) if found.get(key) != base.get(key))
    return [f"{component}: {key} is {_short(found.get(key))}, the base model's {_short(base.get(key))}" for key in keys]


def _text_differences(component: str, path: Path, texts: Sequence[str], model: ModelInfo) -> Iterator[str]:
    """Yield how a component's configurations and vocabularies differ from the base model's."""
    base = model.base_files(component)
    own = select_texts([f"{component}/{file.name}" for file in base.iterdir()], {component: ("", "")})
    here, there = (
        {name.partition("/")[2] for name in some if name.startswith(f"{component}/")} for some in (texts, own)
    )
    for name in sorted(here | there):
        if name not in here or name not in there:
            yield f"{component}: {'only the base model has' if name in there else 'the base model lacks'} {name}"
        elif name.endswith(".json"):
            first, second = _json(path / component / name), _json(base / name)
            if isinstance(first, dict) and isinstance(second, dict) and name.endswith("config.json"):
                keys = {*first, *second} - set(UNIMPORTANT)
                yield from (
                    f"{component}/{name}: {key} is {_short(first.get(key))}, the base model's {_short(second.get(key))}"
                    for key in sorted(keys)
                    if first.get(key) != second.get(key)
                )
            elif first != second:
                yield f"{component}: {name} is another one than the base model's"
        elif (path / component / name).read_bytes() != (base / name).read_bytes():
            yield f"{component}: {name} is another one than the base model's"


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"cannot be read as JSON: {error}", where=str(path)) from error


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:60]}..."
