"""What a model's configurations say about noise and conditioning: read here alone, and refused where it is not known.

Imports no torch: a step's ``plan`` calls :func:`require_trainable`, so that nobody trains for hours on another process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from publisher.api.families import Anatomy, Prediction
from publisher.api.models import ModelInfo
from publisher.errors import ModelError

PREDICTIONS: Mapping[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v_prediction"}
"""``prediction_type`` of a scheduler of DDPM -> what its denoiser predicts."""
FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
"""Classes of diffusers that sample flow matching. Their configurations have no ``prediction_type``: it is velocity."""
FLOW_SOLVERS = ("DPMSolverMultistepScheduler",)
"""Classes that sample flow matching if their configurations say both ``flow_prediction`` and ``use_flow_sigmas``."""
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


@dataclass(frozen=True)
class NoiseProcess:
    """A forward process, from images to noise, and what the denoiser was trained to predict."""

    prediction: Prediction
    """Noise or velocity of the discrete process of DDPM, or velocity of flow matching (``"flow"``)."""
    steps: int
    """Number of timesteps; those of flow matching are numbers between 0 and this one, with fractions."""
    betas: Mapping[str, Any] = field(default_factory=dict)
    """What diffusers' schedulers make the betas of DDPM of: their own arguments, all of them set; empty for flow."""
    shift: float = 1.0
    """Static shift of flow matching (k): a noise level u in [0, 1] becomes k u / (1 + (k - 1) u)."""


def read_process(scheduler: str, config: Mapping[str, Any]) -> NoiseProcess:
    """Return the process that a scheduler of diffusers stands for.

    Args:
        scheduler: its class, as ``model_index.json`` names it.
        config: ``scheduler_config.json``. A key that is not there has the default of the class.

    Raises:
        ModelError: a class, a prediction or a key that makes another process than the one that is trained on here.
    """
    if scheduler in FLOW_SCHEDULERS:
        return _flow(scheduler, config)
    if _solves_flow(scheduler, config):
        return _solved_flow(scheduler, config)
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
    trained = betas["trained_betas"]
    steps = int(betas["num_train_timesteps"]) if trained is None else len(trained)
    return NoiseProcess(PREDICTIONS[prediction], steps, betas)


def _flow(scheduler: str, config: Mapping[str, Any]) -> NoiseProcess:
    if config.get("invert_sigmas"):
        raise _unknown(f"invert_sigmas = {config['invert_sigmas']!r} makes another noise process of {scheduler}")
    shift = 1.0 if config.get("use_dynamic_shifting") else float(config.get("shift", 1.0))  # dynamic: when it samples
    return NoiseProcess("flow", int(config.get("num_train_timesteps", 1000)), shift=shift)


def _solves_flow(scheduler: str | None, config: Mapping[str, Any]) -> bool:
    """Return whether a solver of another process is told to sample flow matching, by both keys that say so."""
    said = config.get("prediction_type") == "flow_prediction" and bool(config.get("use_flow_sigmas"))
    return scheduler in FLOW_SOLVERS and said


def _solved_flow(scheduler: str, config: Mapping[str, Any]) -> NoiseProcess:
    if config.get("use_dynamic_shifting"):
        raise _unknown(f"use_dynamic_shifting makes another noise process of {scheduler}")
    shift = float(config.get("flow_shift", 1.0))
    return NoiseProcess("flow", int(config.get("num_train_timesteps", 1000)), shift=shift)


def require_flow(scheduler: str | None, config: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Refuse a scheduler that does not sample flow matching, with which the model would generate noise.

    Args:
        scheduler: its class, as ``model_index.json`` names it; None: there is none.
        config: ``scheduler_config.json``, where a family's models may have one of :data:`FLOW_SOLVERS`.

    Raises:
        ModelError: it is another one, or missing.
    """
    if scheduler not in FLOW_SCHEDULERS and not _solves_flow(scheduler, config):
        raise ModelError(
            f"the scheduler is {scheduler or 'missing'}, and models of this family are sampled by flow matching "
            f"({' or '.join(FLOW_SCHEDULERS)})",
            where="scheduler",
            hint="Put the scheduler back that the model was trained with.",
        )


def process_of(model: ModelInfo) -> NoiseProcess:
    """Return the noise process that a model was trained on, from its scheduler.

    Raises:
        ModelError: it has no scheduler, one that :func:`read_process` refuses, or one of another process than its
            family's denoisers are trained on.
    """
    if "scheduler" not in model.components:
        raise _unknown("the model has no scheduler, so nothing says what its denoiser was trained on")
    scheduler = class_of(model, "scheduler")
    return require_process(model.anatomy, scheduler, read_process(scheduler, model.config("scheduler")))


def require_process(anatomy: Anatomy, scheduler: str, process: NoiseProcess) -> NoiseProcess:
    """Return a process, if it is one that the family's denoisers are trained on.

    Raises:
        ModelError: it is another one.
    """
    if process.prediction not in anatomy.predictions:
        known = " or ".join(anatomy.predictions)
        raise _unknown(
            f"{scheduler} says {process.prediction}, and denoisers of the family {anatomy.family} predict {known}"
        )
    return process


def require_trainable(model: ModelInfo, *, images: bool = False) -> None:
    """Refuse a model that would be trained on something else than it was made with. Call it in a step's ``plan``.

    Args:
        model: model that the step is going to train, or whose denoising loss it is going to read.
        images: the step encodes images with :func:`publisher.api.diffusion.latents.encode_images`.

    Raises:
        ModelError: its noise process, its denoiser's inputs or its latents are none that are known here.
    """
    model.anatomy.require(("training",), "a training")
    process_of(model)
    denoiser = model.anatomy.denoiser
    why_not = model.anatomy.why_untrainable(model.config(denoiser))
    if why_not:
        raise _unknown(why_not, denoiser)
    if images:
        _require_encoder(model)


def _require_encoder(model: ModelInfo) -> None:
    name, config = class_of(model, "vae"), model.config("vae")
    if name != model.anatomy.autoencoder:
        raise ModelError(
            f"the autoencoder is {name}, and images are encoded for training by {model.anatomy.autoencoder} alone",
            where="vae",
            hint="Release the model with the autoencoder that it was trained with; put the other one in afterwards.",
        )
    unread = [key for key in VAE_KEYS if config.get(key) and key not in model.anatomy.vae_keys]
    if unread:
        raise ModelError(
            f"the autoencoder has {' and '.join(unread)}, which the model's pipeline does not read when it generates",
            where="vae/config.json",
            hint="Nothing says which latents the model was trained on. Remove what it was not trained with.",
        )


AUTOENCODERS = ("AutoencoderKL", "AutoencoderKLQwenImage", "AutoencoderDC")
"""Classes of diffusers whose latents :func:`publisher.api.diffusion.latents.encode_images` knows."""
VAE_KEYS = ("shift_factor", "latents_mean", "latents_std")
"""Keys of an autoencoder, besides ``scaling_factor``, by which latents are normalised where a pipeline reads them."""


def _index(model: ModelInfo) -> Mapping[str, Any]:
    try:
        return model.config("model_index")
    except KeyError:
        return {}


def class_of(model: ModelInfo, component: str) -> str:
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
