"""Beginning later than with noise: the same image from half-made latents, pictures that get noise, and known parts."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline, EulerDiscreteScheduler

from publisher.api import Begin, ImageRequest, Latents
from publisher.api.diffusion.latents import decode_latents, encode_images
from publisher.api.diffusion.starting import Start
from publisher.builtin.flux import FluxTransformer
from publisher.runtime.beginning import mixed, unpacked
from publisher.runtime.generate import generate, half_made, levels_of, noise_of
from publisher.runtime.pipelines import load, twin
from publisher_emoji import model_folder
from support.anatomies import EMBEDDED, anatomy_of

CPU = torch.device("cpu")
REQUESTS = [
    ImageRequest(concept="pizza", prompt=prompt, seed=seed, steps=3, guidance=3.0)
    for seed, prompt in enumerate(("a pizza emoji", "a cat emoji"))
]


@pytest.fixture(scope="module", params=["unet", "transformer"])
def loaded(request: pytest.FixtureRequest) -> DiffusionPipeline:
    if request.param == "unet":
        return load(model_folder(), EMBEDDED, CPU, torch.float32)
    return load(model_folder("dit"), anatomy_of(model_folder("dit")), CPU, torch.float32)


def off(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


def test_what_half_the_steps_made_becomes_the_same_image(loaded: DiffusionPipeline) -> None:
    whole = generate(loaded, REQUESTS)
    half = half_made(twin(loaded), REQUESTS, {1, 2})
    assert sorted(half) == [1, 2]
    for done, latents in half.items():
        start = Start(Begin(skipped=done, noised=False), latents)
        assert off(generate(twin(loaded), REQUESTS, start=start), whole) <= 1
    assert torch.equal(generate(loaded, REQUESTS), whole)


def test_noise_that_is_not_turned_is_what_it_is_and_turned_by_90_degrees_the_images_own(
    loaded: DiffusionPipeline,
) -> None:
    whole, noise = generate(loaded, REQUESTS), noise_of(loaded, REQUESTS)
    others = noise.flip(0)
    turned = Start(Begin(noised=False, angle=90), others)
    assert off(generate(twin(loaded), REQUESTS, start=turned), whole) <= 1
    assert off(generate(twin(loaded), REQUESTS, start=Start(Begin(noised=False), noise)), whole) <= 1
    assert off(generate(twin(loaded), REQUESTS, start=Start(Begin(noised=False), others)), whole) > 1


def test_a_picture_has_the_noise_of_its_level_and_a_known_part_comes_out_as_it_went_in(
    loaded: DiffusionPipeline,
) -> None:
    images = generate(loaded, REQUESTS).float() / 255
    latents = encode_images(loaded.vae, images)
    path, noise = levels_of(twin(loaded), REQUESTS), noise_of(loaded, REQUESTS)
    assert [sigma for _, sigma in path] == sorted((sigma for _, sigma in path), reverse=True)
    assert (len(path), path[-1]) == (4, (1.0, 0.0))
    x = mixed(Start(Begin(skipped=2), latents), noise, path[2])
    torch.testing.assert_close(x, path[2][0] * latents + path[2][1] * noise)
    mask = torch.ones(2, 1, *latents.shape[2:])
    kept = generate(twin(loaded), REQUESTS, start=Start(Begin(), latents, mask)).float() / 255
    assert float((kept - decode_latents(loaded.vae, latents)).abs().max()) < 0.01
    with pytest.raises(ValueError, match="3 of 3 steps are skipped"):
        generate(twin(loaded), REQUESTS, start=Start(Begin(skipped=3), latents))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside diffusers
def test_a_scheduler_that_scales_noise_gets_pictures_half_made_latents_and_noise_as_they_are() -> None:
    pipeline = load(model_folder(), EMBEDDED, CPU, torch.float32)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    whole, noise = generate(twin(pipeline), REQUESTS), noise_of(pipeline, REQUESTS)
    half = half_made(twin(pipeline), REQUESTS, {2})[2]
    assert off(generate(twin(pipeline), REQUESTS, start=Start(Begin(skipped=2, noised=False), half)), whole) <= 1
    assert off(generate(twin(pipeline), REQUESTS, start=Start(Begin(noised=False), noise)), whole) <= 1
    latents = encode_images(pipeline.vae, whole.float() / 255)
    again = generate(twin(pipeline), REQUESTS, start=Start(Begin(skipped=2), latents))
    assert float((again.float() - whole.float()).abs().mean()) < 12


FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside diffusers
@pytest.mark.parametrize(
    ("name", "weights"),
    [("DPMSolverMultistepScheduler", ""), ("DPMSolverMultistepScheduler", "dit"), ("LCMScheduler", "")],
)
def test_steps_of_a_solver_that_looks_ahead_are_those_of_the_whole_sampling(name: str, weights: str) -> None:
    folder = model_folder(weights) if weights else model_folder()
    pipeline = load(folder, anatomy_of(folder), CPU, torch.float32)
    config = {} if weights else pipeline.scheduler.config
    pipeline.scheduler = getattr(diffusers, name).from_config(config, **(FLOW if weights else {}))
    asked = [one.model_copy(update={"steps": 4}) for one in REQUESTS]
    whole = generate(twin(pipeline), asked)
    half = half_made(twin(pipeline), asked, {1, 2, 3})
    assert all(bool(latents.isfinite().all()) for latents in half.values())
    again = generate(twin(pipeline), asked, start=Start(Begin(skipped=3, noised=False), half[3]))
    assert off(again, whole) <= 1


def test_packed_latents_are_unpacked() -> None:
    anatomy = FluxTransformer("flux-1", "transformer", (), 8, Latents(16, 4, 6))
    latents = torch.randn(2, 16, 4, 6)
    packed = anatomy.pack(latents)
    assert packed.shape != latents.shape
    assert torch.equal(unpacked(anatomy, packed), latents)
