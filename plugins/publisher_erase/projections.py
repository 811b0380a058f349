"""The tensors that are edited: keys and values of cross-attention, found by name, or refused."""

from __future__ import annotations

from collections.abc import Mapping

from publisher.api import ModelError, ModelInfo, TensorInfo, cross_attention

PROJECTIONS = ("to_k", "to_v")
FLOATS = ("F64", "F32", "F16", "BF16")
TRAPS = (
    (
        (".to_kv.", ".to_qkv."),
        "its projections are fused: editing to_k and to_v would do nothing",
        "Call unfuse_qkv_projections() and save it anew.",
    ),
    (
        ("lora_", ".base_layer."),
        "it holds an adapter (LoRA) that is not merged and would add the concept again",
        "Merge it with fuse_lora() and save it anew.",
    ),
    (
        ("_ip.", "encoder_hid_proj"),
        "it has image-prompt layers, whose embeddings this edit does not reach",
        "Release the model without the IP-Adapter.",
    ),
    (
        (".attn2.to_k.bias", ".attn2.to_v.bias"),
        "its key and value projections have a bias, which the closed form does not know",
        "Only projections without bias can be edited.",
    ),
)
"""Parts of names, what is wrong with a denoiser that has them, and what to do."""


def find_projections(model: ModelInfo) -> tuple[str, ...]:
    """Names of all tensors that the edit changes, sorted. Reads headers only.

    Raises:
        ModelError: no cross-attention, a layer with keys or values alone, another width, or a denoiser for which the
            edit would not do what it says; see :data:`TRAPS`.
    """
    anatomy = model.anatomy
    where = anatomy.denoiser
    tensors = model.tensors(where)
    _refuse_traps(tensors, where)
    if model.config(where).get("encoder_hid_dim_type"):
        raise ModelError("projects its text embeddings before cross-attention (encoder_hid_dim_type)", where=where)
    found = tuple(sorted(f"{layer}.{part}.weight" for layer in cross_attention(model) for part in PROJECTIONS))
    for name in found:
        _check_tensor(tensors[name], anatomy.text_width, where)
    return found


def check_encoders(model: ModelInfo) -> None:
    """Every text encoder and tokenizer is there, and their widths add up to what cross-attention reads.

    Raises:
        ModelError: one is missing, or the widths do not fit.
    """
    anatomy = model.anatomy
    for part in anatomy.text_encoders:
        for component in (part.component, part.tokenizer):
            if component not in model.components:
                raise ModelError("is missing: prompts cannot be embedded as the pipeline does", where=component)
    total = sum(part.width for part in anatomy.text_encoders)
    if total != anatomy.text_width:
        raise ModelError(f"the text encoders give {total} numbers a token, cross-attention reads {anatomy.text_width}")


def _refuse_traps(tensors: Mapping[str, TensorInfo], where: str) -> None:
    for parts, what, hint in TRAPS:
        found = next((name for name in tensors if any(part in name for part in parts)), None)
        if found:
            raise ModelError(f"{what} (tensor {found!r})", where=where, hint=hint)


def _check_tensor(tensor: TensorInfo, width: int, where: str) -> None:
    if tensor.dtype not in FLOATS:
        raise ModelError(
            f"{tensor.name!r} is quantised ({tensor.dtype})", where=where, hint="Edit the full weights, quantise later."
        )
    if len(tensor.shape) != 2 or tensor.shape[1] != width:
        raise ModelError(
            f"{tensor.name!r} has shape {tensor.shape}, which does not read {width} numbers a token", where=where
        )
