"""Membranes (SPM, arXiv 2312.16145) as data: the file, the arithmetic, and what a package says about them.

    y = W x + sum_c gamma_c s_c up_c down_c x                                               (eq. 1 and 9)

    W       (m, n)  a Linear or 1x1 convolution of a transformer of the denoiser: the *host*
    down_c  (r, n)  the regulator of concept c (v_reg)
    up_c    (m, r)  its erasing signal (v_sig)
    s_c             alpha / r
    gamma_c         the permeability: 1 in merged weights, a function of the prompt in a pipeline

A file of a U-Net is what the authors' code writes, a kohya LoRA of the UNet alone: for each host
``<stem>.lora_down.weight``, ``<stem>.lora_up.weight`` and ``<stem>.alpha``, where the stem is ``lora_unet_`` and the
module's path with ``_`` for ``.``; metadata ``prompts``, ``rank``, ``alpha``. A file of a transformer has the names of
diffusers, ``transformer.<path>.lora_A.weight``: see ``names.py``, and ``kohya_flux.py`` for other names of FLUX.1.
Importing this module imports no torch.
"""

from __future__ import annotations

from publisher.api.membranes.hosts import Size, find_hosts, hosts_among, misfits, read_sizes, require_fit, sizes_of
from publisher.api.membranes.index import (
    FOLDER,
    INDEX,
    STOP_WORDS,
    MembraneEntry,
    MembraneIndex,
    PredictionGate,
    Transport,
)
from publisher.api.membranes.kohya_flux import fused
from publisher.api.membranes.names import ADAPTER, FACTORS, PARTS, is_stem, kohya_parts, read_adapter, stem_in
from publisher.api.membranes.parts import PREFIX, TRANSFORMER, Branch, Host, Membrane, MembraneFileError, stem_of
from publisher.api.membranes.reading import parse_membrane, parse_membrane_bytes, read_membrane
from publisher.api.membranes.sums import bundled, weight_change
from publisher.api.membranes.writing import membrane_bytes, membrane_metadata, membrane_tensors, of_transformer

__all__ = [
    "ADAPTER",
    "FACTORS",
    "FOLDER",
    "INDEX",
    "PARTS",
    "PREFIX",
    "STOP_WORDS",
    "TRANSFORMER",
    "Branch",
    "Host",
    "Membrane",
    "MembraneEntry",
    "MembraneFileError",
    "MembraneIndex",
    "PredictionGate",
    "Size",
    "Transport",
    "bundled",
    "find_hosts",
    "fused",
    "hosts_among",
    "is_stem",
    "kohya_parts",
    "membrane_bytes",
    "membrane_metadata",
    "membrane_tensors",
    "misfits",
    "of_transformer",
    "parse_membrane",
    "parse_membrane_bytes",
    "read_adapter",
    "read_membrane",
    "read_sizes",
    "require_fit",
    "sizes_of",
    "stem_in",
    "stem_of",
    "weight_change",
]
