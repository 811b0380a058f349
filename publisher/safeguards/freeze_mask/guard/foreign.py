"""Code from elsewhere on frozen layers: the tensors stay as they are, and what the layers compute does not.

peft puts a module around a layer. Others leave the layer where it is: LyCORIS and kohya's scripts put a function of
their own in place of its ``forward``, some hang a hook on it, some exchange its class, and some keep parameters in it
or beside it under the names that :mod:`publisher.api.weight_names` knows.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from publisher.api.weight_names import Layers
from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError
from publisher.safeguards.freeze_mask.guard.names import canonical

TRUSTED = frozenset({"accelerate", "diffusers", "publisher", "torch"})
"""Packages whose functions around ``forward`` move, cast, log or compile, and compute nothing else."""
DEPTH = 3
"""Steps by which the parameters of a function are looked for: from a method to its owner, to what that holds."""
LEAVES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.GroupNorm, nn.LayerNorm, nn.Embedding)
"""Layers that have a weight and a bias, and nothing below them: everything else in them is an adapter's."""
HINT = (
    "Take it off, or leave frozen layers out of it: guard.exclude_modules() has their names. For LyCORIS:\n"
    "LycorisNetwork.apply_preset({'exclude_name': guard.exclude_modules()}) before the network is made."
)

Hosts = Mapping[str, nn.Module]
"""Layer by canonical name -> the module that holds its frozen weight itself."""


def hosts_of(denoiser: nn.Module, layers: Iterable[str]) -> dict[str, nn.Module]:
    """Return the modules that hold frozen weights, not those that peft puts around them."""
    wanted = frozenset(layers)
    found = ((canonical(name), module) for name, module in denoiser.named_modules())
    return {name: module for name, module in found if name in wanted and module._parameters}  # noqa: SLF001 - its own


def require_own_forward(hosts: Hosts, kinds: Mapping[str, type]) -> None:
    """Refuse frozen layers that compute something else than they did. Cheap: no layer is run.

    Args:
        hosts: from :func:`hosts_of`.
        kinds: layer -> its class when it was frozen.

    Raises:
        MaskBrokenError: names the layer and what sits on it.
    """
    for name, host in hosts.items():
        table = host.__dict__
        if "forward" not in table and type(host) is kinds.get(name) and not _hooked(table):
            continue  # of hundreds of layers almost all, at every step
        if type(host) is not kinds.get(name, type(host)) and _package(type(host).__module__) not in TRUSTED:
            raise MaskBrokenError(
                f"the mask freezes this layer, and {_called(host)} replaced it", where=name, hint=HINT
            )
        for function in _foreign(host):
            what = "sits on" if function in _hooks(host) else "replaced the forward of"
            raise MaskBrokenError(f"{_called(function)} {what} a layer that the mask freezes", where=name, hint=HINT)


def require_no_parts(denoiser: nn.Module, hosts: Hosts) -> None:
    """Refuse parameters inside of frozen layers, or beside them, that are named as an adapter's.

    Raises:
        MaskBrokenError: names the layer and the parameter.
    """
    leaves = {name: host for name, host in hosts.items() if isinstance(host, LEAVES)}
    layers = Layers("", [f"{name}.{part}" for name in leaves for part in ("weight", "bias")])
    for name in dict.fromkeys(canonical(name) for name, _ in denoiser.named_parameters()):
        for layer in layers.sort([name]).adapters:
            raise MaskBrokenError(
                f"the parameter {name!r} acts on a layer that the mask freezes", where=layer, hint=HINT
            )


def parameters_on(hosts: Hosts) -> Iterator[Tensor]:
    """Yield what an optimizer may train of the foreign code on frozen layers."""
    for host in hosts.values():
        for function in _foreign(host):
            yield from _reached(function)


def _hooked(table: Mapping[str, Any]) -> bool:
    return bool(table["_forward_hooks"] or table["_forward_pre_hooks"])


def _hooks(host: nn.Module) -> list[Any]:
    return [*host._forward_pre_hooks.values(), *host._forward_hooks.values()]  # noqa: SLF001 - torch has no reader


def _foreign(host: nn.Module) -> Iterator[Any]:
    """Yield functions from elsewhere in place of a layer's ``forward``, and hooks on it that can have parameters."""
    function, seen = host.__dict__.get("forward"), set[int]()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        if getattr(function, "__func__", None) is not type(host).forward and _package(_home(function)) not in TRUSTED:
            yield function
        function = getattr(function, "__wrapped__", None)
    for hook in _hooks(host):
        if _package(_home(hook)) not in TRUSTED and any(True for _ in _reached(hook)):
            yield hook


def _bare(function: Any) -> Any:
    """Return the function itself, without arguments and owner."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__func__", function)


def _home(function: Any) -> str:
    """Return the module whose code runs. ``__module__`` would not do: ``functools.wraps`` copies it."""
    bare = _bare(function)
    return bare.__globals__["__name__"] if isinstance(bare, FunctionType) else type(bare).__module__


def _package(module: str) -> str:
    return module.partition(".")[0]


def _called(thing: Any) -> str:
    """Return what a message calls an object or a function: its owner's class, or the name in its code."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    if isinstance(thing, FunctionType):
        return f"{_home(thing)}.{thing.__code__.co_qualname}"
    kind = type(getattr(thing, "__self__", thing))
    return f"{kind.__module__}.{kind.__qualname__}"


def _reached(function: Callable[..., Any]) -> Iterator[Tensor]:
    """Yield parameters that a function can use: of its owner, arguments, closure and globals, and what those hold."""
    pending, seen = [(function, 0)], set[int]()
    while pending:
        thing, depth = pending.pop()
        if id(thing) in seen or depth > DEPTH:
            continue
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            yield from thing.parameters()
        elif isinstance(thing, Tensor):
            yield from [thing] if thing.is_leaf and thing.requires_grad else []
        else:
            pending += [(one, depth + 1) for one in _held(thing)]


def _held(thing: Any) -> list[Any]:
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, MethodType):
        return [thing.__func__, thing.__self__]
    if isinstance(thing, FunctionType):
        return list(_used(thing))
    if isinstance(thing, list | tuple | set | frozenset):
        return list(thing)
    held = {} if isinstance(thing, type | ModuleType) else thing if isinstance(thing, Mapping) else _attributes(thing)
    return list(held.values())


def _attributes(thing: Any) -> Mapping[str, Any]:
    return getattr(thing, "__dict__", {})


def _used(function: FunctionType) -> Iterator[Any]:
    """Yield defaults, the closure, and globals that the function's code names."""
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    for name in _names(function.__code__):
        if name in function.__globals__:
            yield function.__globals__[name]


def _names(code: CodeType) -> Iterator[str]:
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return itertools.chain(code.co_names, itertools.chain.from_iterable(map(_names, inner)))
