"""Which tensors of the denoiser belong to what: by name, from headers. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable

from publisher.api import ModelInfo, cross_attention
from publisher_immunize.params import Outer

KEYS_VALUES = re.compile(r"\.attn2\.to_[kv]$")
"""Paths of the layers that read the text."""
ATTENTION = re.compile(r"\.attn[12]\.(to_[qkv]|to_out\.0)$")
"""Paths of the layers that adapters are put on."""
_SETS = {
    "cross-attention-kv": re.compile(r"\.attn2\.to_[kv]\.weight$"),
    "cross-attention": re.compile(r"\.attn2\.(to_[qkv]|to_out\.0)\."),
    "attention": re.compile(r"\.attn[12]\.(to_[qkv]|to_out\.0)\."),
    "full": re.compile(""),
}


def in_set(names: Iterable[str], kind: Outer) -> list[str]:
    """Those of ``names`` that belong to a set of tensors, sorted."""
    return sorted(name for name in names if _SETS[kind].search(name))


def exported(model: ModelInfo, kind: Outer) -> list[str]:
    """Names of the denoiser's tensors that are trained and written.

    Raises:
        ModelError: cross-attention is not where the family has it.
    """
    cross_attention(model)
    return in_set(model.tensors(model.anatomy.denoiser), kind)
