"""Write a pipeline so that older versions of transformers read it too: 4.57 and 5.0 as well as what saved it.

``save_pretrained`` of recent versions names a text encoder's weights without ``text_model.``, and older ones then fill
all of them at random with no more than a warning. It also writes a tokenizer in one file that only recent ones read.
Every version reads the older form.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

PREFIX = "text_model."


def write_for_older(folder: Path) -> None:
    """Change a saved pipeline in place.

    Args:
        folder: folder with ``text_encoder`` and ``tokenizer``.
    """
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = {PREFIX + name.removeprefix(PREFIX): tensor for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, {"format": "pt"})
    weights.chmod(0o644)
    write_vocabulary(folder / "tokenizer")


def write_vocabulary(tokenizer: Path) -> None:
    """Write what older versions read of a CLIP tokenizer beside what recent ones do.

    Args:
        tokenizer: its folder, with ``tokenizer.json``.
    """
    model = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    vocabulary = json.dumps(model["vocab"], ensure_ascii=False, indent=0)
    (tokenizer / "vocab.json").write_text(vocabulary + "\n", encoding="utf-8")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (tokenizer / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
