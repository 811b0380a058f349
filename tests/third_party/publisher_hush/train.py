"""The training of ``hush``: this module imports torch, and the step imports it when it runs."""

import torch

from publisher.api.diffusion.checkpoints import Checkpoints
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.loop import Loop, Training, optimizer_state, restore_optimizer, thin
from publisher.api.diffusion.text import encode


class Hushing(Training):
    """The trained denoiser is to say of a prompt what the frozen one says of no prompt."""

    def __init__(self, params, ctx, names):
        self.trained, self.frozen = (Denoiser.load(ctx.model, ctx.device, torch.float32) for _ in range(2))
        prompts = [prompt for concept in ctx.scope.concepts for prompt in concept.prompts]
        texts = encode(ctx.model, ["", *prompts], ctx.device)
        self.nothing, self.prompts = texts[""], [texts[prompt] for prompt in prompts]
        weights = dict(self.trained.network.named_parameters())
        self.weights = {name: weights[name].requires_grad_() for name in names}
        self.optimizer = torch.optim.AdamW(self.weights.values(), lr=params.lr)
        self.generators = {"noise": ctx.generator("noise")}

    def step(self, done):
        generator, device = self.generators["noise"], self.trained.device
        x = torch.randn(1, self.trained.channels, *self.trained.size, generator=generator).to(device)
        t = torch.randint(1, 1000, (1,), generator=generator).to(device)
        said = self.trained(x, t, self.prompts[done % len(self.prompts)])
        loss = (said - self.frozen.frozen(x, t, self.nothing)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        return [loss.item()]

    def move(self, done):
        self.optimizer.step()

    def state(self):
        adam = {f"adam.{name}": value for name, value in optimizer_state(self.optimizer).items()}
        return adam | {f"weight.{name}": weight for name, weight in self.weights.items()}

    def restore(self, state, done):
        for name, weight in self.weights.items():
            weight.data.copy_(state[f"weight.{name}"])
        adam = {name.removeprefix("adam."): value for name, value in state.items() if name.startswith("adam.")}
        restore_optimizer(self.optimizer, adam)


def train(params, ctx, names):
    """Train, record the losses, and return the weights by name."""
    training = Hushing(params, ctx, names)
    loop = Loop(
        steps=params.steps,
        every=params.every,
        checkpoints=Checkpoints(ctx.scratch, "hush", str(params.as_json())),
        progress=lambda done, line: ctx.progress(done, params.steps, line),
        warn=ctx.warn,
        where="hush",
        hint="Lower lr.",
    )
    losses = [row[0] for row in loop.run(training)]
    ctx.curve("loss", *thin(losses))
    return {name: weight.detach() for name, weight in training.weights.items()}
