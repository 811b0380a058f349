"""Rules of families. With the model's weights they are held against its pipeline in diffusers; else by words alone."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from publisher.api import Anatomy, ImageRequest, denoiser_of
from publisher.api.families import Capability
from publisher.model.folder import read_configs
from publisher.registry import load_registry
from publisher.testing.plugin import PluginUnderTest, Rule, demand

if TYPE_CHECKING:
    from torch import Tensor

    from publisher.api.diffusion.text import Text

PROMPTS = ("a dog emoji", "a cat emoji")
"""Two texts of as many tokens, letters or words."""
SEEDS = (7, 8)
STEPS = 3
ALL: tuple[Capability, ...] = get_args(Capability)


def anatomy_of(one: PluginUnderTest) -> Anatomy:
    """Return what the family says of the model.

    Raises:
        BrokenRuleError: it does not recognise it.
    """
    folder = one.place
    found = one.plugin().recognise(read_configs(folder))
    demand(
        isinstance(found, Anatomy),
        f"it does not recognise {folder}: give contract(..., configs=...) of a model that it does",
    )
    anatomy: Anatomy = found
    return anatomy


def recognises_its_own(one: PluginUnderTest) -> None:
    """Demand that it recognises the model given, names its own family, and recognises it again in the same way."""
    demand(anatomy_of(one).family == one.plugin.name, f"its anatomy says {anatomy_of(one).family!r} as its family")
    demand(anatomy_of(one) == anatomy_of(one), "it names other parts when it is asked again")


def refuses_others(one: PluginUnderTest) -> None:
    """Demand that it says no to a pipeline that nobody knows, and says why."""
    stranger = {"model_index": {"_class_name": "NoSuchPipeline"}}
    demand(one.plugin().recognise(stranger) is None, "it recognises a model of the class NoSuchPipeline")
    demand(one.plugin().why_not(stranger), "why_not() gives no reason for the class NoSuchPipeline")


def names_what_is_there(one: PluginUnderTest) -> None:
    """Demand that the parts it names are parts of the model."""
    configs, anatomy = read_configs(one.place), anatomy_of(one)
    named = {anatomy.denoiser, *(part for text in anatomy.text_encoders for part in (text.component, text.tokenizer))}
    missing = sorted(named - set(configs))
    demand(not missing, f"it names {', '.join(missing)}, which the model does not have")
    demand(min(anatomy.latents.size) > 0 and anatomy.text_width > 0, f"sizes are missing: {anatomy.latents!r}")


def is_the_only_one(one: PluginUnderTest) -> None:
    """Demand that no other installed family recognises its model: exactly one may."""
    configs = read_configs(one.place)
    others = [entry.name for entry in load_registry().all("family") if entry.name != one.plugin.name]
    found = [name for name in others if load_registry().get("family", name).cls().recognise(configs) is not None]
    demand(not found, f"the family {', '.join(found)} recognises its model too")


def parts_can_be_sent(one: PluginUnderTest) -> None:
    """Demand that its anatomy can be pickled: tasks for other processes carry it."""
    anatomy = anatomy_of(one)
    try:
        again = pickle.loads(pickle.dumps(anatomy))  # noqa: S301 - made here
    except Exception as error:  # noqa: BLE001 - pickle raises what it likes
        demand(condition=False, what=f"its anatomy cannot be pickled ({error}): put its class at the top of a module")
    else:
        demand(again == anatomy, "its anatomy is another one once it was pickled")


def says_what_it_lacks(one: PluginUnderTest) -> None:
    """Demand a reason in ``lacks`` for each capability that its models have not, and for no other."""
    has, lacks = anatomy_of(one).capabilities, one.plugin.lacks
    silent = [name for name in ALL if name not in has and not lacks.get(name)]
    demand(not silent, f"its models have no {', '.join(silent)}, and lacks does not say why")
    wrong = sorted(name for name in lacks if name in has or name not in ALL)
    demand(not wrong, f"lacks names {', '.join(wrong)}, which its models have, or which is no capability")


@dataclass(frozen=True)
class Stepped:
    """What a pipeline gave to its scheduler at one step."""

    output: Tensor
    """What it made of the denoiser's output: noise or velocity, shaped like the sample."""
    t: Tensor
    """Timestep of the scheduler."""
    sample: Tensor
    """Noisy latents, packed as the pipeline packs them."""


def generates_as_diffusers(one: PluginUnderTest) -> None:
    """Demand images that are bit for bit those of diffusers' pipeline, called as the family says."""
    import torch

    from publisher.runtime.generate import generate

    pipeline = _pipeline(one)
    anatomy = pipeline.anatomy
    asked = [
        ImageRequest(concept="", prompt=prompt, seed=seed, steps=STEPS, guidance=4.0)
        for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]
    ours = generate(pipeline, asked)
    plain = _plain(one)
    height, width = anatomy.latents.image_size
    theirs = plain(
        list(PROMPTS),
        height=height,
        width=width,
        num_inference_steps=STEPS,
        latents=anatomy.pack(_noise(anatomy)),
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="pt",
        **anatomy.call(4.0) | ({} if anatomy.negative is None else {"negative_prompt": [anatomy.negative] * 2}),
    ).images
    demand(tuple(theirs.shape[-2:]) == (height, width), f"images are {tuple(theirs.shape)}, not {height} x {width}")
    same = torch.equal(ours, theirs.mul(255).round().to(torch.uint8))
    demand(same, "the images of generate() are not those of diffusers' pipeline")
    demand(not torch.equal(ours[0], ours[1]), "two prompts and two seeds give one image")


def reads_text_alone(one: PluginUnderTest) -> None:
    """Demand that its texts are read alike when denoiser and autoencoder are not loaded, as steps read them."""
    import torch

    from publisher.api.loading import load_pipeline

    whole = _pipeline(one)
    part = load_pipeline(one.place, whole.anatomy, torch.float32, without=(whole.anatomy.denoiser, "vae"))
    with torch.no_grad():
        texts = [whole.anatomy.read_text(pipeline, list(PROMPTS)) for pipeline in (whole, part)]
    for name in ("states", "pooled", "mask"):
        first, second = (getattr(text, name) for text in texts)
        same = first is second is None or torch.equal(first, second)
        demand(same, f"read_text() gives other {name} when the denoiser is not loaded")
    demand(texts[0].states.shape[-1] == whole.anatomy.text_width, "text rows are not text_width wide")


def predicts_what_is_sampled(one: PluginUnderTest) -> None:
    """Demand that ``predict`` says at every step what the pipeline gives to its scheduler: timestep, sign, packing."""
    import torch

    pipeline = _pipeline(one)
    anatomy = pipeline.anatomy
    if "training" not in anatomy.capabilities:
        return
    with _watched(pipeline) as steps:
        _sample(pipeline, anatomy.pack(_noise(anatomy)))
    demand(len(steps) == STEPS, f"the pipeline made {len(steps)} of {STEPS} steps")
    with torch.no_grad():
        text = anatomy.read_text(pipeline, list(PROMPTS))
        for step in steps:
            x = _unpacked(anatomy, step.sample)
            found = anatomy.pack(anatomy.predict(denoiser_of(pipeline), x, step.t.float().expand(len(x)), text))
            difference = _difference(found.reshape(step.output.shape), step.output)
            demand(
                difference < 1e-5,
                f"at timestep {float(step.t):.1f}, predict() differs from what the pipeline gives to its scheduler by "
                f"{difference:.1e} of it",
            )


def learns_what_is_sampled(one: PluginUnderTest) -> None:
    """Demand that the pipeline, given what training aims at, finds the image; and that a step of training descends."""
    import torch

    from publisher.api.diffusion.denoiser import Denoiser
    from publisher.api.diffusion.latents import Noising

    pipeline = _pipeline(one)
    anatomy = pipeline.anatomy
    if "training" not in anatomy.capabilities:
        return
    scale = float(getattr(pipeline.scheduler, "init_noise_sigma", 1.0))
    demand(scale == 1.0, "its scheduler scales the noise: save the model with DDIMScheduler or one of flow matching")
    noising, noise = Noising.of(pipeline), _noise(anatomy)
    x = torch.rand(noise.shape, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    with _watched(pipeline) as steps:
        _sample(pipeline, anatomy.pack(noise))
    first = steps[0].t
    if noising.prediction == "flow":  # of which a scheduler may round the timesteps
        first = pipeline.scheduler.sigmas[0] * noising.steps
    start = noising.noisy(x, noise, first.expand(len(x)))
    with _watched(pipeline, lambda t: anatomy.pack(noising.target(x, noise, t.expand(len(x))))):
        found = _unpacked(anatomy, _sample(pipeline, anatomy.pack(start)))
    difference = _difference(found, x)
    demand(difference < 1e-4, f"the sampler, told what training aims at, ends {difference:.1e} beside the image")
    denoiser = Denoiser.of(pipeline)
    with torch.no_grad():
        text = anatomy.read_text(pipeline, list(PROMPTS))
    noise, t = noising.sample(x, torch.Generator().manual_seed(1))
    parameters = list(denoiser.network.parameters())
    before = noising.loss(denoiser, x, text, noise, t).mean()
    gradients = torch.autograd.grad(before, parameters, allow_unused=True)
    length = sum(float(g.square().sum()) for g in gradients if g is not None) ** 0.5
    kept = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.add_(gradient, alpha=-1e-3 / length)
        after = noising.loss(denoiser, x, text, noise, t).mean()
        for parameter, value in zip(parameters, kept, strict=True):  # exactly: other rules read the same pipeline
            parameter.copy_(value)
    was, now = float(before.detach()), float(after)
    demand(now < was, f"the loss goes from {was:.6f} to {now:.6f} along its own gradient")


def names_all_doors(one: PluginUnderTest) -> None:
    """Demand that text enters by the layers that are named and by no other: cross-attention, or the text entry.

    Where an edit can be folded into a layer before them, text enters by this layer, and they read what it writes.
    """
    import torch

    pipeline = _pipeline(one)
    anatomy, network = pipeline.anatomy, denoiser_of(pipeline)
    if "training" not in anatomy.capabilities:
        return
    with torch.no_grad():
        one_text, other = (anatomy.read_text(pipeline, [prompt]) for prompt in PROMPTS)
        x = _noise(anatomy)[:1]
        for t in (1.0, 500.0, 999.0):
            wanted, given = _recorded(pipeline, x, t, other)
            mixed = type(other)(one_text.states, one_text.pooled if anatomy.pooled_entry else other.pooled, other.mask)
            plain = anatomy.predict(network, x, x.new_tensor([t]), one_text)
            with _hooked(network, {name: _giving(rows) for name, rows in given.items()}):
                found = anatomy.predict(network, x, x.new_tensor([t]), mixed)
            demand(not torch.equal(plain, wanted), "two texts give one prediction")
            difference = _difference(found, wanted)
            demand(
                difference < 1e-6,
                f"with another text at {', '.join(given)} alone, the prediction is {difference:.1e} beside that of the "
                "other text: text enters elsewhere too",
            )
        if anatomy.text_fold:
            _entries_read_the_fold(pipeline, x, other)


def _entries_read_the_fold(pipeline: Any, x: Tensor, text: Text) -> None:
    """Demand that each text entry reads what the layer before it writes, value for value."""
    import torch

    anatomy, network = pipeline.anatomy, denoiser_of(pipeline)
    written: list[Tensor] = []
    layer = anatomy.text_fold[0].removesuffix(".weight")
    entries = tuple(name.removesuffix(".weight") for name in anatomy.text_entry)
    given: dict[str, list[Tensor]] = {name: [] for name in entries}
    handle = network.get_submodule(layer).register_forward_hook(lambda _module, _args, out: written.append(out))
    try:
        with _hooked(network, {name: _keeping(rows) for name, rows in given.items()}):
            anatomy.predict(network, x, x.new_tensor([1.0]), text)
    finally:
        handle.remove()
    other = [name for name, rows in given.items() if not (rows and torch.equal(rows[0], written[0]))]
    demand(not other, f"{', '.join(other)} reads something else than {layer} writes")


def doors_of(pipeline: Any) -> tuple[str, ...]:
    """Return the names of the denoiser's layers by which text enters: entries, or keys and values of cross-attention.

    Where an edit can be folded into the layer before the entries, it is that one, and not they.

    Args:
        pipeline: that the program loaded.
    """
    anatomy = pipeline.anatomy
    names = (*(anatomy.text_fold[:1] or anatomy.text_entry), *anatomy.pooled_entry)
    entries = tuple(name.removesuffix(".weight") for name in names)
    ends = tuple(f".{anatomy.cross_attention}.{part}" for part in ("to_k", "to_v"))
    return entries or tuple(name for name, _ in denoiser_of(pipeline).named_modules() if name.endswith(ends))


def _recorded(pipeline: Any, x: Tensor, t: float, text: Text) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """Return a prediction, and what each door read for it, call by call."""
    network = denoiser_of(pipeline)
    given: dict[str, list[Tensor]] = {name: [] for name in doors_of(pipeline)}
    demand(given, "it names no layer by which text enters")

    with _hooked(network, {name: _keeping(rows) for name, rows in given.items()}):
        wanted = pipeline.anatomy.predict(network, x, x.new_tensor([t]), text)
    silent = sorted(name for name, rows in given.items() if not rows)
    demand(not silent, f"{', '.join(silent)} reads nothing when the denoiser runs")
    return wanted, given


def _keeping(rows: list[Tensor]) -> Callable[[Any, tuple[Any, ...]], None]:
    return lambda _module, args: rows.append(args[0])


def _giving(rows: Sequence[Tensor]) -> Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]:
    left = iter(rows)
    return lambda _module, args: (next(left), *args[1:])


@contextmanager
def _hooked(network: Any, hooks: dict[str, Any]) -> Iterator[None]:
    modules = dict(network.named_modules())
    missing = sorted(set(hooks) - set(modules))
    demand(not missing, f"it names {', '.join(missing)}, which is no layer of the denoiser")
    handles = [modules[name].register_forward_pre_hook(hook) for name, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pipeline(one: PluginUnderTest) -> Any:
    """Return the model's pipeline, as a release loads it; loaded once."""
    import torch

    from publisher.runtime.pipelines import load

    if "pipeline" not in one.results:
        one.results["pipeline"] = load(one.place, anatomy_of(one), torch.device("cpu"), torch.float32)
    return one.results["pipeline"]


def _plain(one: PluginUnderTest) -> Any:
    """Return the model's pipeline, as users of diffusers load it; its numbers lie in memory as a release has them."""
    import diffusers
    import torch

    from publisher.api.loading import quiet
    from publisher.runtime.pipelines import lay_out

    configs = read_configs(one.place)
    index = configs["model_index"]
    absent = {name: None for name, value in index.items() if value == [None, None]}
    kind = getattr(diffusers, anatomy_of(one).pipeline or index["_class_name"])
    with quiet():
        found = kind.from_pretrained(one.place, dtype=torch.float32, **absent)
    found.set_progress_bar_config(disable=True)
    for network in (getattr(found, anatomy_of(one).denoiser), found.vae):
        lay_out(network)  # which moves the last bits
    return found


def _noise(anatomy: Anatomy) -> Tensor:
    import torch

    shape = (anatomy.latents.channels, *anatomy.latents.size)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])


def _sample(pipeline: Any, latents: Tensor) -> Tensor:
    """Return the latents that the pipeline ends with, without guidance."""
    import torch

    height, width = pipeline.anatomy.latents.image_size
    with torch.no_grad():
        done = pipeline(
            list(PROMPTS),
            height=height,
            width=width,
            num_inference_steps=STEPS,
            latents=latents,
            generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
            output_type="latent",
            **pipeline.anatomy.call(1.0),
        )
    found: Tensor = done.images
    return found


@contextmanager
def _watched(pipeline: Any, answer: Callable[[Tensor], Tensor] | None = None) -> Iterator[list[Stepped]]:
    """Collect what the pipeline gives to its scheduler; give it ``answer`` of the timestep in its place."""
    steps: list[Stepped] = []
    plain = pipeline.scheduler.step

    def step(output: Tensor, t: Tensor, sample: Tensor, *args: Any, **options: Any) -> Any:
        steps.append(Stepped(output.clone(), t.clone(), sample.clone()))
        given = output if answer is None else answer(t).reshape(output.shape).to(output.dtype)
        return plain(given, t, sample, *args, **options)

    pipeline.scheduler.step = step
    try:
        yield steps
    finally:
        del pipeline.scheduler.step


def _unpacked(anatomy: Anatomy, packed: Tensor) -> Tensor:
    """Return latents as they were before ``pack``, which only moves numbers: ``(n, channels, height, width)``."""
    import torch

    shape = (len(packed), anatomy.latents.channels, *anatomy.latents.size)
    places = anatomy.pack(torch.arange(packed.numel(), dtype=torch.float64).reshape(shape)).flatten().long()
    demand(torch.equal(places.sort().values, torch.arange(packed.numel())), "pack() does more than to move numbers")
    found = packed.new_empty(packed.numel())
    found[places] = packed.flatten()
    return found.reshape(shape)


def _difference(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


BY_WORDS: dict[str, Rule] = {
    "recognises-its-own": recognises_its_own,
    "refuses-others": refuses_others,
    "names-what-is-there": names_what_is_there,
    "is-the-only-one": is_the_only_one,
    "parts-can-be-sent": parts_can_be_sent,
    "says-what-it-lacks": says_what_it_lacks,
}
"""Rules that read configurations."""
BY_WEIGHTS: dict[str, Rule] = {
    "generates-as-diffusers": generates_as_diffusers,
    "reads-text-alone": reads_text_alone,
    "predicts-what-is-sampled": predicts_what_is_sampled,
    "learns-what-is-sampled": learns_what_is_sampled,
    "names-all-doors": names_all_doors,
}
"""Rules that run the model."""


def rules(one: PluginUnderTest) -> dict[str, Rule]:
    """Return the rules of a family; those that run the model, where there is more of it than configurations."""
    return BY_WORDS if one.configs else {**BY_WORDS, **BY_WEIGHTS}
