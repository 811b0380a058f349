from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from tiny_sd import CAT, DOG, quick, seeded, session

from publisher.api import ModelError, UsageError
from publisher.api.membranes import find_hosts, membrane_bytes, require_fit
from publisher.api.steps import MOST_POINTS
from publisher.testing.tiny import open_model
from publisher_emoji import model_folder
from publisher_membrane_bundle.membranes import find_layers, match_hosts
from publisher_membrane_bundle.params import Anchors, MembraneParams
from publisher_membrane_bundle.plan import Target
from publisher_membrane_bundle.train import Optimiser, TrainedMembranes, curves, learning_rate, train, warnings
from support.anatomies import EMBEDDED
from support.tiny_sdxl import save_tiny_sdxl


class Stopped(Exception):  # noqa: N818
    """As if the process had been killed."""


def stop_at(step: int) -> Callable[[int, int, str], None]:
    def progress(done: int, _total: int, _text: str) -> None:
        if done == step:
            raise Stopped

    return progress


def content(trained: TrainedMembranes) -> list[bytes]:
    return [membrane_bytes(membrane) for membrane in trained.membranes.values()]


@pytest.mark.parametrize(
    ("trainer", "step"),
    [
        ("pool", 1),
        pytest.param("pool", 5, marks=pytest.mark.slow),
        pytest.param("exact", 5, marks=pytest.mark.slow),
        pytest.param("exact", 11, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bytes(tiny_sd: Path, tmp_path: Path, trainer: str, step: int) -> None:
    params = quick(trainer=trainer, checkpoint_every=3, steps=7)
    targets, model = [CAT, DOG], open_model(tiny_sd)
    whole = train(model, targets, [], params, session(tmp_path / "whole"))
    with pytest.raises(Stopped):
        train(model, targets, [], params, session(tmp_path / "part", stop_at(step)))
    told: list[tuple[int, int, str]] = []
    resumed = train(model, targets, [], params, session(tmp_path / "part", lambda *line: told.append(line)))
    assert content(resumed) == content(whole)
    assert resumed.curves == whole.curves
    assert resumed.numbers == whole.numbers
    first = {1: 1, 5: 4, 11: 11}[step]  # exact: the first membrane was done after 7, the second has a checkpoint at 3
    assert next(done for done, _, text in told if "erase loss" in text) == first


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tiny_sd: Path, tmp_path: Path) -> None:
    model = open_model(tiny_sd)
    first, again = (train(model, [CAT], [], quick(), session(tmp_path / name)) for name in "ab")
    other = train(
        model, [CAT], [], quick(), session(tmp_path / "c", generator=lambda purpose: seeded(f"other {purpose}"))
    )
    assert content(first) == content(again) != content(other)


def test_how_often_checkpoints_are_made_does_not_matter(tiny_sd: Path, tmp_path: Path) -> None:
    model = open_model(tiny_sd)
    often, seldom = (train(model, [CAT], [], quick(checkpoint_every=n), session(tmp_path / str(n))) for n in (1, 100))
    assert content(often) == content(seldom)
    assert len(list((tmp_path / "1").iterdir())) == 2


@pytest.fixture(scope="module")
def undisturbed(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What a run with a checkpoint every 2 steps gives."""
    folder = tmp_path_factory.mktemp("whole")
    return content(train(open_model(tiny_sd), [CAT], [], quick(checkpoint_every=2), session(folder)))


@pytest.mark.parametrize("damage", ["tensors", "index", "missing", "foreign"])
def test_a_checkpoint_that_is_damaged_or_foreign_is_ignored_aloud(
    tiny_sd: Path, tmp_path: Path, undisturbed: list[bytes], damage: str
) -> None:
    model, params = open_model(tiny_sd), quick(checkpoint_every=2)
    earlier = quick(checkpoint_every=2, lr=1e-3) if damage == "foreign" else params
    with pytest.raises(Stopped):
        train(model, [CAT], [], earlier, session(tmp_path / "part", stop_at(5)))
    (tensors,) = (tmp_path / "part").glob("*.safetensors")
    (index,) = (tmp_path / "part").glob("*.json")
    if damage == "tensors":
        tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x7f")
    elif damage == "index":
        index.write_text("[", encoding="utf-8")
    elif damage == "missing":
        tensors.unlink()
    resumed = train(model, [CAT], [], params, session(tmp_path / "part"))
    assert content(resumed) == undisturbed
    assert "the training started again" in resumed.warnings[0]


def test_a_checkpoint_cannot_name_a_file_elsewhere(tiny_sd: Path, tmp_path: Path) -> None:
    model, params = open_model(tiny_sd), quick(checkpoint_every=2)
    with pytest.raises(Stopped):
        train(model, [CAT], [], params, session(tmp_path / "part", stop_at(5)))
    (index,) = (tmp_path / "part").glob("*.json")
    said = json.loads(index.read_text(encoding="utf-8"))
    (tmp_path / "part" / said["file"]).rename(tmp_path / said["file"])
    index.write_text(json.dumps({**said, "file": f"../{said['file']}"}), encoding="utf-8")
    assert "damaged" in train(model, [CAT], [], params, session(tmp_path / "part")).warnings[0]


@pytest.mark.slow
def test_sdxl_trains_with_pooled_text_and_time_ids(tmp_path: Path) -> None:
    model = open_model(save_tiny_sdxl(tmp_path / "model"))
    for trainer in ("exact", "pool"):
        trained = train(model, [CAT], [], quick(trainer=trainer), session(tmp_path / trainer))
        require_fit(trained.membranes["cat"], find_hosts(model), "test")
        assert any(bool(branch.up.any()) for branch in trained.membranes["cat"].branches.values())


@pytest.mark.parametrize(
    ("trainer", "dtype"),
    [
        pytest.param("exact", torch.bfloat16, marks=pytest.mark.slow),
        ("pool", torch.bfloat16),
        pytest.param("pool", torch.float16, marks=pytest.mark.slow),
    ],
)
def test_over_half_precision_factors_stay_float32(
    tiny_sd: Path, tmp_path: Path, trainer: str, dtype: torch.dtype
) -> None:
    half = session(tmp_path, dtype=dtype)
    trained = train(open_model(tiny_sd), [CAT, DOG], [], quick(trainer=trainer), half)
    branches = trained.membranes["cat"].branches.values()
    assert {branch.up.dtype for branch in branches} == {torch.float32}
    assert any(bool(branch.up.any()) for branch in branches)


def test_a_membrane_fits_its_model_and_says_its_texts(tiny_sd: Path, tmp_path: Path) -> None:
    model = open_model(tiny_sd)
    trained = train(model, [DOG], [], quick(rank=2), session(tmp_path))
    require_fit(trained.membranes["dog"], find_hosts(model), "test")
    assert len(trained.membranes["dog"].branches) == 48
    assert trained.membranes["dog"].prompts == DOG.texts
    assert trained.membranes["dog"].rank == 2


def test_a_text_that_would_be_cut_is_refused(tiny_sd: Path, tmp_path: Path) -> None:
    long = "cat " * 40
    with pytest.raises(UsageError, match="has 40 tokens, the model reads 30"):
        train(open_model(tiny_sd), [Target("cat", (long,), ("",), (long,))], [], quick(), session(tmp_path))


def test_losses_that_are_no_numbers_end_the_run(tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(optimiser: Optimiser, _index: int) -> None:
        optimiser.membranes.flat.data.fill_(float("inf"))

    monkeypatch.setattr(Optimiser, "step", spoil)
    with pytest.raises(UsageError, match="no longer numbers at step 2") as error:
        train(open_model(tiny_sd), [CAT], [], quick(), session(tmp_path))
    assert "Lower lr or lam" in str(error.value)


def test_clipping_bounds_what_one_step_can_do(tiny_sd: Path, tmp_path: Path) -> None:
    model = open_model(tiny_sd)
    plain, clipped = (
        train(model, [CAT, DOG], [], quick(steps=4, max_grad_norm=norm), session(tmp_path / str(norm)))
        for norm in (0.0, 1e-6)
    )
    assert content(plain) != content(clipped)


def test_progress_names_texts_places_and_both_losses(tiny_sd: Path, tmp_path: Path) -> None:
    lines: list[tuple[int, int, str]] = []
    train(open_model(tiny_sd), [CAT], [], quick(), session(tmp_path, lambda *line: lines.append(line)))
    texts = [line for line in lines if line[2] == "texts encoded"]
    places = [line for line in lines if "brought to their places" in line[2]]
    losses = [line for line in lines if "erase loss" in line[2] and "anchor loss" in line[2]]
    assert lines == texts + places + losses
    assert [line[:2] for line in losses] == [(i, 8) for i in range(1, 9)]
    assert texts[-1][0] == texts[-1][1] > 0
    assert places


def test_curves_are_thinned_to_means_over_windows() -> None:
    losses = torch.arange(2000.0)[:, None, None].expand(2000, 3, 1)
    (name, x, y, _), _, (rest, _, left, _) = curves(["cat"], losses * torch.tensor([1.0, 1.0, 2.0])[:, None])
    assert (name, rest) == ("cat: erase loss", "cat: erase residual")
    assert set(left) == {0.5}
    assert len(x) == len(y) == MOST_POINTS
    assert (x[0], y[0], x[-1]) == (5.0, 2.0, 2000.0)


def test_a_small_scale_and_anchors_that_outweigh_the_erasing_are_warned_of() -> None:
    losses = torch.tensor([1.0, 0.01, 1.2])[None, :, None].expand(10, 3, 1)
    assert warnings(["cat"], losses, lam=1.0, scale=1.0) == []
    assert "lower lam" in warnings(["cat"], losses, lam=1000.0, scale=1.0)[0]
    assert "raise alpha" in warnings(["cat"], losses, lam=1.0, scale=1 / 32)[0]


def test_the_learning_rate_warms_up_from_zero_and_restarts() -> None:
    params = MembraneParams(steps=110, warmup=10, cycles=2, lr=1.0)
    rates = [learning_rate(params, i) for i in range(110)]
    assert rates[0] == 0
    assert rates[5] == 0.5
    assert rates[10] == rates[60] == 1
    assert rates[59] < 0.01 < rates[61]


@pytest.mark.slow
def test_anchors_without_the_empty_prompt_train_too(tiny_sd: Path, tmp_path: Path) -> None:
    trained = train(open_model(tiny_sd), [CAT], [], quick(anchors=Anchors(uncond=0.0)), session(tmp_path))
    assert trained.curves[1][2][-1] > 0
    alone = train(open_model(tiny_sd), [CAT], [], quick(anchors=Anchors(uncond=1.0)), session(tmp_path / "alone"))
    assert alone.curves[1][2][-1] > 0


SD = {
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
SD2 = {**SD, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
SDXL = {
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True,
    "transformer_layers_per_block": (1, 2, 10),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@pytest.mark.parametrize(
    ("config", "hosts", "parameters"), [(SD, 192, 423_936), (SD2, 192, 432_128), (SDXL, 722, 2_659_840)]
)
def test_real_architectures_have_the_published_layers(config: dict[str, object], hosts: int, parameters: int) -> None:
    with torch.device("meta"):
        layers = find_layers(UNet2DConditionModel(**config), EMBEDDED)
    assert len(layers) == hosts
    assert sum(sum(layer.weight.shape[:2]) for layer in layers.values()) == parameters


def test_the_embedded_model_has_84_and_a_wrapped_layer_is_noticed() -> None:
    model = open_model(model_folder())
    config = dict(model.config("unet"))
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    assert len(match_hosts(unet, find_hosts(model), EMBEDDED)) == 84
    unet.mid_block.attentions[0].proj_in = torch.nn.Identity()
    with pytest.raises(ModelError, match=r"has 83 layers .* its files 84"):
        match_hosts(unet, find_hosts(model), EMBEDDED)
