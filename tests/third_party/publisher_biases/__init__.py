"""An attack that trains: fine-tune the denoiser's biases alone (BitFit, arXiv 2106.10199)."""

from pydantic import Field

from publisher import api


class BiasParams(api.DescentParams):
    lr: float = Field(default=1e-3, gt=0, le=1, description="Learning rate.")
    layers: str = Field(default="", description="Only biases with this word in their name; empty: all of them.")


class Biases(api.DescentAttack[BiasParams]):
    """Train the denoiser's biases and nothing else."""

    name, version, summary = "biases", "1", "fine-tune the denoiser's biases"
    access = api.Access.TRAINING

    def choose(self, start):
        from publisher.api.diffusion.learner import Trainable, free_parameters

        free = free_parameters(api.denoiser_of(start.pipeline), start.data.frozen).items()
        wanted = (weight for name, weight in free if name.endswith(".bias") and start.params.layers in name)
        return Trainable(tuple(wanted))


@api.hookimpl
def publisher_register_attacks():
    return [Biases]
