"""Which files of a diffusers folder make the model: one rule for what is fetched, what is planned, what is packaged.

It is the rule of the loaders of diffusers and transformers: of each part its texts, and the weights that they read.
Everything else (variants, EMA copies, pickles, adapters, hidden files) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from publisher.errors import ModelError

INDEX = "model_index.json"
CARD = "README.md"
ROOT_FILES = (
    INDEX,
    CARD,
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
    "NOTICE.md",
    "NOTICE.txt",
)
TEXT_TYPES = (".json", ".txt", ".model")
WEIGHT_INDEX = ".safetensors.index.json"
HEAVY = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".pkl")
VARIANT = re.compile(
    r"\.(fp16|bf16|fp32|non_ema|ema)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$|\.(fp16|bf16|non_ema)\."
)

RELEASE = "release"
"""Folder of a package for all that is not the model."""
SUMMARY = "release/release.json"
BASE_CARD = "release/base-model-card.md"
MEMBRANES = "release/membranes/index.json"
MASK = "release/freeze-mask.json"
CARRIED = (SUMMARY, BASE_CARD, MEMBRANES, MASK)
"""What tells a released package from a plain model, and what it promises."""

LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
"""Whose classes a part may have; the last is a module of diffusers with a class of transformers' kind."""
OPTIONAL = ("feature_extractor", "image_encoder", "safety_checker")
"""Parts that a pipeline does without when its index says ``[null, null]``."""
_WEIGHTLESS = re.compile(r"(Scheduler|Tokenizer(Fast)?|FeatureExtractor|Processor(Fast)?)$")

Parts = Mapping[str, tuple[str, str]]
"""Name of a part, which is its folder -> library and class."""


def model_parts(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the parts that a ``model_index.json`` names, sorted.

    Raises:
        ModelError: a part is of custom code.
    """
    found = {}
    for name, value in sorted(index.items()):
        if name.startswith("_") or not isinstance(value, list):
            continue
        library, kind = (*value, None, None)[:2]
        if kind is None:
            continue
        if library not in LIBRARIES or not isinstance(kind, str) or not name.isidentifier():
            raise ModelError(
                f"component {name!r} is of {library}.{kind}, which is custom code",
                where=INDEX,
                hint="Only classes of diffusers and transformers can be released.",
            )
        found[name] = (library, kind)
    return found


def is_package(names: Collection[str]) -> bool:
    """Return whether these files are of a released package, whole or in part."""
    return not set(CARRIED).isdisjoint(names)


def is_hidden(name: str) -> bool:
    """Return whether file managers and editors hide a file or a folder above it. Such a file is never of the model."""
    return any(part.startswith(".") for part in name.split("/"))


def select_texts(names: Collection[str], parts: Parts) -> tuple[str, ...]:
    """Return the licence, the card, configurations and vocabularies of a model, sorted.

    The card of a package speaks of that release and never goes into another one: its base model's card does.

    Args:
        names: POSIX paths of all files.
        parts: of the model.
    """
    root = {BASE_CARD if name == CARD and is_package(names) else name for name in ROOT_FILES}
    inside = {name for name in names if _is_text(name) and name.count("/") == 1 and name.partition("/")[0] in parts}
    return tuple(sorted(inside | (root & set(names))))


def _is_text(name: str) -> bool:
    ours = name.endswith(TEXT_TYPES) and not name.endswith(WEIGHT_INDEX)
    return ours and not VARIANT.search(name) and not is_hidden(name)


def select_weights(
    names: Collection[str], part: str, parts: Parts, read: Callable[[str], Mapping[str, Any]]
) -> tuple[str, ...]:
    """Return the weights that the loader of a part reads, with their index; nothing for a part without weights.

    Args:
        names: POSIX paths of all files.
        part: one of ``parts``.
        parts: of the model.
        read: path of an index of weights -> its content.

    Raises:
        ModelError: the loader would find no weights, or not all of them.
    """
    library, kind = parts[part]
    if _WEIGHTLESS.search(kind):
        return ()
    single = f"{part}/{'diffusion_pytorch_model' if library == 'diffusers' else 'model'}.safetensors"
    index = f"{part}/{single.rpartition('/')[2].removesuffix('.safetensors')}{WEIGHT_INDEX}"
    if single in names and (index not in names or library != "diffusers"):
        return (single,)
    if index not in names:
        raise _no_weights(names, part, single)
    shards = {f"{part}/{name}" for name in _shards(read(index), index)}
    missing = sorted(shards - set(names))
    if missing:
        what = f"the index names shards that are not there: {', '.join(missing)}"
        raise ModelError(what, where=index, hint="The model is incomplete: fetch or copy it again.")
    return (index, *sorted(shards))


def _shards(index: Mapping[str, Any], where: str) -> list[str]:
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise ModelError("is no index of weights: its weight_map must give a file for each tensor", where=where)
    return list(shards.values())


def _no_weights(names: Collection[str], part: str, wanted: str) -> ModelError:
    here = sorted(name for name in names if name.startswith(f"{part}/") and name.endswith(HEAVY))
    others = ", ".join(name.partition("/")[2] for name in here if not is_hidden(name))
    hint = "Save the pipeline again with save_pretrained(..., safe_serialization=True), without a variant."
    return ModelError(
        f"has no {wanted.rpartition('/')[2]}" + (f", only {others}" if others else ""),
        where=part,
        hint=f"{hint}\n{without(part)}" if part in OPTIONAL else hint,
    )


def without(part: str) -> str:
    """Return how to release a model without a part that it can do without."""
    return f'To release it without this part, write "{part}": [null, null] in {INDEX}.'


@contextmanager
def under(root: str) -> Iterator[None]:
    """Put the place of a model before the path that an error of this module names."""
    try:
        yield
    except ModelError as error:
        if not error.where.startswith(root):
            error.where = f"{root}/{error.where}"
        raise
