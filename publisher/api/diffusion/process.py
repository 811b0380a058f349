"""What a model's configurations say about noise and conditioning: read here alone, and refused where it is not known.

Imports no torch: a step's ``plan`` calls :func:`require_trainable`, so that nobody trains for hours on another process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from publisher.api.models import ModelInfo
from publisher.errors import ModelError

Prediction = Literal["epsilon", "v_prediction"]
PREDICTIONS: Mapping[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v_prediction"}
_Betas = dict[str, float | str]
_NARROW: _Betas = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
_WIDE: _Betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"}
_SCALED: _Betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS: Mapping[str, _Betas] = {
    **dict.fromkeys(
        (
            "DDIMParallelScheduler",
            "DDIMScheduler",
            "DDPMParallelScheduler",
            "DDPMScheduler",
            "DEISMultistepScheduler",
            "DPMSolverMultistepScheduler",
            "DPMSolverSinglestepScheduler",
            "EulerAncestralDiscreteScheduler",
            "EulerDiscreteScheduler",
            "LMSDiscreteScheduler",
            "PNDMScheduler",
            "SASolverScheduler",
            "UniPCMultistepScheduler",
        ),
        _NARROW,
    ),
    **dict.fromkeys(
        ("DPMSolverSDEScheduler", "HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler"),
        _WIDE,
    ),
    **dict.fromkeys(("LCMScheduler", "TCDScheduler"), _SCALED),
}
"""Classes of diffusers that sample the discrete process of DDPM, and the betas of a configuration that names none."""
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
_OTHER_MEANING: Mapping[str, tuple[Any, ...]] = {
    "timestep_type": ("discrete",),
    "use_flow_sigmas": (False,),
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}
"""Keys of a scheduler that make another process of it -> the values that do not, besides null."""
_CONDITIONING = {
    "class_embed_type": "reads a class beside the text",
    "encoder_hid_dim": "projects its text embeddings",
    "encoder_hid_dim_type": "projects its text embeddings",
    "num_class_embeds": "reads a class beside the text",
    "time_cond_proj_dim": "reads the guidance scale that it was distilled with",
}
"""Keys of a denoiser that reads more than a training gives it."""


@dataclass(frozen=True)
class NoiseProcess:
    """The discrete forward process of DDPM, and what the denoiser was trained to predict."""

    betas: Mapping[str, Any]
    """Arguments that diffusers' schedulers make the betas of, all of them set."""
    prediction: Prediction
    """Quantity that the denoiser predicts."""

    @property
    def steps(self) -> int:
        """Number of timesteps of the process."""
        trained = self.betas["trained_betas"]
        return int(self.betas["num_train_timesteps"]) if trained is None else len(trained)


def read_process(scheduler: str, config: Mapping[str, Any]) -> NoiseProcess:
    """Return the process that a scheduler of diffusers stands for.

    Args:
        scheduler: its class, as ``model_index.json`` names it.
        config: ``scheduler_config.json``. A key that is not there has the default of the class.

    Raises:
        ModelError: a class, a prediction or a key that makes another process than the one that is trained on here.
    """
    if scheduler not in SCHEDULERS:
        raise _unknown(f"the noise process of {scheduler or 'a scheduler without a class'} is not known")
    for key, plain in _OTHER_MEANING.items():
        if config.get(key) not in (None, *plain):
            raise _unknown(f"{key} = {config[key]!r} makes another noise process of {scheduler}")
    prediction = str(config.get("prediction_type") or "epsilon")
    if prediction not in PREDICTIONS:
        raise _unknown(f"the model predicts {prediction!r}; known are {' and '.join(PREDICTIONS)}")
    defaults: dict[str, Any] = {"num_train_timesteps": 1000, "trained_betas": None, "rescale_betas_zero_snr": False}
    betas = {key: config.get(key, default) for key, default in (defaults | SCHEDULERS[scheduler]).items()}
    if betas["beta_schedule"] not in BETA_SCHEDULES:
        raise _unknown(f"beta_schedule = {betas['beta_schedule']!r} is not one of {', '.join(BETA_SCHEDULES)}")
    return NoiseProcess(betas, PREDICTIONS[prediction])


def process_of(model: ModelInfo) -> NoiseProcess:
    """Return the noise process that a model was trained on, from its scheduler.

    Raises:
        ModelError: it has no scheduler, or one that :func:`read_process` refuses.
    """
    if "scheduler" not in model.components:
        raise _unknown("the model has no scheduler, so nothing says what its denoiser was trained on")
    config = model.config("scheduler")
    return read_process(_class_of(model, "scheduler"), config)


def latent_size(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width of the latents, from the denoiser's configuration (its ``sample_size``).

    Raises:
        ModelError: it says none, or something else than one or two whole numbers.
    """
    size = config.get("sample_size")
    sizes = [size, size] if isinstance(size, int) else size
    if isinstance(sizes, (list, tuple)) and len(sizes) == 2 and all(type(one) is int and one > 0 for one in sizes):
        return sizes[0], sizes[1]
    raise ModelError(
        f"sample_size is {size!r}, so nothing says how large the model's images are",
        where="unet/config.json",
        hint="Write the height and width of the latents that it was trained at: 64 for images of 512 pixels.",
    )


def require_plain(config: Mapping[str, Any]) -> None:
    """Refuse a denoiser that reads more than latents, timesteps and text, or predicts more than one value a latent.

    Args:
        config: configuration of the ``UNet2DConditionModel``.

    Raises:
        ModelError: it does; the message names the key.
    """
    for key, what in _CONDITIONING.items():
        if config.get(key) is not None:
            raise _unknown(f"the denoiser {what} ({key} = {config[key]!r}), and training does not", "unet")
    if config.get("addition_embed_type") not in (None, "text_time"):
        what = f"the denoiser reads an additional embedding ({config['addition_embed_type']!r}), and training does not"
        raise _unknown(what, "unet")
    channels = config.get("in_channels", 4), config.get("out_channels", 4)
    if channels[0] != channels[1]:
        what = f"the denoiser reads {channels[0]} channels and writes {channels[1]}: it predicts more than the noise"
        raise _unknown(what, "unet")


def require_trainable(model: ModelInfo, *, images: bool = False) -> None:
    """Refuse a model that would be trained on something else than it was made with. Call it in a step's ``plan``.

    Args:
        model: model that the step is going to train, or whose denoising loss it is going to read.
        images: the step encodes images with :func:`publisher.api.diffusion.latents.encode_images`.

    Raises:
        ModelError: its noise process, its denoiser's inputs or its latents are none that are known here.
    """
    process_of(model)
    config = model.config(model.anatomy.denoiser)
    require_plain(config)
    latent_size(config)
    if images:
        _require_encoder(model)


def _require_encoder(model: ModelInfo) -> None:
    name, config = _class_of(model, "vae"), model.config("vae")
    if name != "AutoencoderKL":
        raise ModelError(
            f"the autoencoder is {name}, and images are encoded for training by AutoencoderKL alone",
            where="vae",
            hint="Release the model with the autoencoder that it was trained with; put the other one in afterwards.",
        )
    unread = [key for key in ("shift_factor", *(() if model.anatomy.pooled_text else LATENTS)) if config.get(key)]
    if unread:
        raise ModelError(
            f"the autoencoder has {' and '.join(unread)}, which the model's pipeline does not read when it generates",
            where="vae/config.json",
            hint="Nothing says which latents the model was trained on. Remove what it was not trained with.",
        )


LATENTS = ("latents_mean", "latents_std")
"""Keys of an autoencoder whose latents are normalised for each channel. Pipelines of SDXL read them, others do not."""


def reads_nothing_as_zeros(model: ModelInfo) -> bool:
    """Return whether the pipeline reads a missing negative prompt as zeros: SDXL does, unless its index says otherwise.

    Other pipelines encode the empty text.
    """
    return model.anatomy.pooled_text and bool(_index(model).get("force_zeros_for_empty_prompt", True))


def _index(model: ModelInfo) -> Mapping[str, Any]:
    try:
        return model.config("model_index")
    except KeyError:
        return {}


def _class_of(model: ModelInfo, component: str) -> str:
    """Return the class that diffusers loads: the index decides, whatever the component's own configuration says."""
    entry = _index(model).get(component)
    found = entry[1] if isinstance(entry, (list, tuple)) and len(entry) == 2 else None
    return str(found or model.config(component).get("_class_name") or "")


def _unknown(what: str, where: str = "scheduler") -> ModelError:
    return ModelError(
        what,
        where=where,
        hint="A training on another process would damage the model without a word. Steps and attacks that do not train "
        "work on it.",
    )
