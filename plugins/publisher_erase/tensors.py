"""Which tensors are edited or trained: found, and checked by their headers alone. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from publisher.api import ModelError, ModelInfo, TensorInfo, cross_attention
from publisher.api.diffusion.process import class_of, require_trainable
from publisher_erase.params import EraseParams
from publisher_erase.presets import derives

PROJECTIONS = ("to_k", "to_v")
FLOATS = ("F64", "F32", "F16", "BF16")
Traps = tuple[tuple[tuple[str, ...], str, str], ...]
TRAPS: Traps = (
    (
        (".to_kv.", ".to_qkv."),
        "its projections are fused: editing to_k and to_v would do nothing",
        "Call unfuse_qkv_projections() and save it again.",
    ),
    (
        ("lora_", ".base_layer."),
        "it holds an adapter (LoRA) that is not merged and would add the concept again",
        "Merge it with fuse_lora() and save it again.",
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
ENTRY_TRAPS = tuple(trap for trap in TRAPS if "lora_" in trap[0])
"""Those that an edit of the text entry can fall into: it does not look at attention."""
CROSS_TRAPS = TRAPS[:-1]
"""The same where the entry is keys and values of cross-attention: their biases stay as they are."""
FEW_STEP_SCHEDULERS = ("LCMScheduler", "TCDScheduler")
"""Classes of diffusers that sample models which were distilled to a few steps, and no others."""


def find_projections(model: ModelInfo) -> tuple[str, ...]:
    """Return the names of all tensors that the edit changes, sorted. Reads headers only.

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


def find_entry(model: ModelInfo) -> tuple[str, ...]:
    """Return the weights that the edit changes: those by which rows enter, then the pooled vector's.

    Where one layer writes the rows that all of the former read, its weight and its bias take their place. Reads headers
    only.

    Raises:
        ModelError: one is missing, quantised or of another width, or holds an adapter that is not merged.
    """
    anatomy = model.anatomy
    where, tensors = anatomy.denoiser, model.tensors(anatomy.denoiser)
    if len(anatomy.pooled_entry) > 1:
        names = ", ".join(anatomy.pooled_entry)
        raise ModelError(f"the pooled vector enters by {names}; the closed form knows one door of it", where=where)
    _refuse_traps(tensors, where, CROSS_TRAPS if anatomy.cross_attention else ENTRY_TRAPS)
    width = anatomy.entry_width or anatomy.text_width
    for name in (*anatomy.text_entry, *anatomy.pooled_entry, *anatomy.text_fold):
        if name not in tensors:
            raise ModelError(f"{name!r}, by which text enters, is not there", where=where)
        if name in anatomy.text_fold:
            _check_writer(tensors[name], width, where)
        else:
            _check_tensor(tensors[name], width if name in anatomy.text_entry else None, where)
    return (*(anatomy.text_fold or anatomy.text_entry), *anatomy.pooled_entry)


def enters_at_once(model: ModelInfo) -> bool:
    """Tell whether the family names all linear maps by which text enters; else it is a U-Net's cross-attention.

    Raises:
        ModelError: by neither.
    """
    if "text-entry" in model.anatomy.capabilities:
        return True
    model.anatomy.require(("cross-attention", "clip-text"), "step 'erase'")
    return False


def find_trained(params: EraseParams, model: ModelInfo, doors: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all tensors that a training changes, sorted. Reads headers only.

    Args:
        params: with those of the method's training decided.
        model: input of the step.
        doors: weights by which text enters, which the closed form changes.

    Raises:
        ModelError: there are no such layers, or a tensor is quantised.
    """
    anatomy, parts = model.anatomy, params.training.parts if params.training else "kv"
    tensors = model.tensors(anatomy.denoiser)
    if parts == "kv":
        return tuple(sorted(doors))
    if parts == "cross-attention":
        if not anatomy.cross_attention:
            raise ModelError(
                f"parts cross-attention: the family {anatomy.family} has no attention that reads the text alone",
                where=anatomy.denoiser,
                hint="Take parts: full, or kv, which are the weights by which text enters.",
            )
        names = sorted({*anatomy.projections(tensors, (anatomy.cross_attention,)), *anatomy.text_fold})
    else:
        names = sorted(set(tensors) - set(anatomy.constants))
    for name in names:
        if tensors[name].dtype not in FLOATS:
            raise ModelError(
                f"{name!r} is quantised ({tensors[name].dtype})",
                where=anatomy.denoiser,
                hint="Train the full weights, quantise later.",
            )
    return tuple(names)


def require_guidance(model: ModelInfo, params: EraseParams) -> None:
    """Refuse a model that a training cannot work on: no known process, no denoiser, or no guidance of two halves.

    A model that was distilled to few steps and has the files of one that was not passes: see :func:`seems_few_step`.

    Raises:
        ModelError: with the closed form that works on it.
    """
    where = model.anatomy.denoiser
    instead = f"Take method: uce or rece, which edit this model in closed form, without running its {where}."
    try:
        require_trainable(model)
    except ModelError as error:
        error.hint = instead
        raise
    why = "it reads the guidance scale as a number" if model.anatomy.distilled else _few_step(model)
    if why:
        raise ModelError(
            f"method {params.method} moves the difference of two predictions that guidance scales, and this model is "
            f"distilled: {why}",
            where=where,
            hint=instead,
        )
    kinds = params.robust.attack.kinds if params.robust else ()
    if "derived" in kinds and not derives(model.anatomy):
        raise ModelError(
            f"the attacker 'derived' is a closed form on keys and values of cross-attention that read what the text "
            f"encoders write, and the family {model.anatomy.family} has none",
            where=model.anatomy.denoiser,
            hint="Take kinds: [states].",
        )
    if "token" in kinds and "clip-text" not in model.anatomy.capabilities:
        raise ModelError(
            f"the attacker 'token' moves a vector in front of CLIP, and the family {model.anatomy.family} reads text "
            "by other encoders too",
            where=model.anatomy.denoiser,
            hint="Take kinds: [states].",
        )


def seems_few_step(model: ModelInfo) -> bool:
    """Return whether the files are like those of a model that was distilled to few steps, and may be another's."""
    return model.config("scheduler").get("timestep_spacing") == "trailing"


def _few_step(model: ModelInfo) -> str:
    """Return what in the files says that the model was distilled to few steps; empty: nothing, which is no proof."""
    scheduler = class_of(model, "scheduler")
    if scheduler in FEW_STEP_SCHEDULERS:
        return f"{scheduler} samples models of few steps, without guidance of two halves"
    if model.anatomy.family == "flux-1" and not model.config("scheduler").get("use_dynamic_shifting"):
        return "FLUX.1 that reads no guidance scale and is sampled without dynamic shifting is schnell, of few steps"
    return ""


def check_encoders(model: ModelInfo) -> None:
    """Check that every text encoder and tokenizer is there, with widths that add up to what cross-attention reads.

    Raises:
        ModelError: one is missing, or the widths do not fit.
    """
    anatomy = model.anatomy
    for part in anatomy.text_encoders:
        for component in (part.component, part.tokenizer):
            if component not in model.components:
                raise ModelError("is missing: prompts cannot be embedded as the pipeline does", where=component)
    total = sum(part.width for part in anatomy.text_encoders)
    if anatomy.cross_attention and total != anatomy.text_width:
        raise ModelError(f"the text encoders give {total} numbers a token, cross-attention reads {anatomy.text_width}")


def _refuse_traps(tensors: Mapping[str, TensorInfo], where: str, traps: Traps = TRAPS) -> None:
    for parts, what, hint in traps:
        found = next((name for name in tensors if any(part in name for part in parts)), None)
        if found:
            raise ModelError(f"{what} (tensor {found!r})", where=where, hint=hint)


def _check_tensor(tensor: TensorInfo, width: int | None, where: str) -> None:
    _check_dtype(tensor, where)
    if len(tensor.shape) != 2 or width not in (None, tensor.shape[1]):
        read = "one vector" if width is None else f"{width} numbers a token"
        raise ModelError(f"{tensor.name!r} has shape {tensor.shape}, which does not read {read}", where=where)


def _check_writer(tensor: TensorInfo, width: int, where: str) -> None:
    """Refuse a weight or a bias of a layer that writes other rows than the text entry reads."""
    _check_dtype(tensor, where)
    if tensor.shape[0] != width:
        raise ModelError(f"{tensor.name!r} has shape {tensor.shape}, which does not write rows of {width}", where=where)


def _check_dtype(tensor: TensorInfo, where: str) -> None:
    if tensor.dtype not in FLOATS:
        raise ModelError(
            f"{tensor.name!r} is quantised ({tensor.dtype})", where=where, hint="Edit the full weights, quantise later."
        )
