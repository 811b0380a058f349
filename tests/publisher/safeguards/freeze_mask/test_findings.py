"""The freeze mask in a package: does it fit the network beside it, and freeze its bytes?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api.freeze_mask import FreezeMask, Share
from publisher.package.verify import verify
from support.auditing import CONV, FROZEN, TO_K, UNET, network, save, write_masked
from support.evaluating import codes, places, release_again

MASK = "release/freeze-mask.json"


@pytest.fixture
def masked(tmp_path: Path, key_pair: tuple[Path, Path]) -> Path:
    return write_masked(tmp_path / "masked", key_pair[0], network(), FROZEN)


def edit(package: Path, key: Path, change: Callable[[dict[str, Any]], object]) -> None:
    mask = json.loads((package / MASK).read_text())
    change(mask)
    (package / MASK).write_text(json.dumps(mask))
    release_again(package, key)


def messages(package: Path, key: Path) -> str:
    return "\n".join(map(str, verify(package, key).findings))


def test_a_mask_that_fits_verifies(masked: Path, key_pair: tuple[Path, Path]) -> None:
    assert verify(masked, key_pair[1]).ok


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_mask_of_narrow_weights_verifies(tmp_path: Path, key_pair: tuple[Path, Path], dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in network().items()}
    assert verify(write_masked(tmp_path / "masked", key_pair[0], tensors, FROZEN), key_pair[1]).ok


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: mask.update(freeze_mask=2), "cannot be read as a freeze mask"),
        (lambda mask: mask.update(code="import os"), "cannot be read as a freeze mask"),
        (lambda mask: mask.update(frozen=[]), "counts 3 of 6 tensors; they are 0 of 6"),
        (lambda mask: mask.update(component="vae/../unet"), "has no weights here"),
        (lambda mask: mask.update(component="vae"), "is for another architecture"),
        (lambda mask: mask.update(architecture="0" * 64), "is for another architecture"),
        (lambda mask: mask["parameters"].update(frozen=1), "counts 1 of"),
        (lambda mask: mask["candidates"].update(more={"shape": [2]}), "unet has no such tensor"),
        (lambda mask: mask.update(others={"seed-1": {f"{CONV}.weight": [[0, 99]]}}), "overlap or lie outside"),
        (lambda mask: mask.update(others={"seed-1": {f"{CONV}.weight": [[4, 9], [3, 5]]}}), "overlap or lie outside"),
        (lambda mask: mask["frozen"].reverse(), "must be sorted by name"),
    ],
    ids=[
        "version",
        "further key",
        "share",
        "path",
        "component",
        "architecture",
        "parameters",
        "candidate",
        "outside",
        "overlap",
        "order",
    ],
)
def test_a_mask_that_does_not_fit_is_refused_even_if_signed(
    masked: Path, key_pair: tuple[Path, Path], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(masked, key_pair[0], change)
    assert codes(verify(masked, key_pair[1])) == {"V023"}
    assert message in messages(masked, key_pair[1])


@pytest.mark.parametrize("name", [f"{TO_K}.weight", f"{CONV}.weight"], ids=["whole", "rows"])
def test_a_frozen_tensor_that_is_not_what_the_mask_freezes_is_refused(
    masked: Path, key_pair: tuple[Path, Path], name: str
) -> None:
    tensors = network()
    tensors[name].view(-1)[0] += 1
    save(masked / UNET, tensors)
    release_again(masked, key_pair[0])
    assert places(verify(masked, key_pair[1]), "V023") == {UNET}
    assert f"'{name}' is not what {MASK} freezes" in messages(masked, key_pair[1])


def test_free_rows_may_be_anything(masked: Path, key_pair: tuple[Path, Path]) -> None:
    tensors = network()
    tensors[f"{CONV}.weight"][20] += 1
    save(masked / UNET, tensors)
    release_again(masked, key_pair[0])
    assert verify(masked, key_pair[1]).ok


def test_a_type_that_no_mask_knows_is_refused(masked: Path, key_pair: tuple[Path, Path]) -> None:
    save(masked / UNET, {name: tensor.double() for name, tensor in network().items()})
    release_again(masked, key_pair[0])
    assert "is stored as F64; a mask knows F32, F16, BF16" in messages(masked, key_pair[1])


def test_a_mask_that_is_no_object_is_refused(masked: Path, key_pair: tuple[Path, Path]) -> None:
    (masked / MASK).write_text("[]")
    release_again(masked, key_pair[0])
    assert places(verify(masked, key_pair[1]), "V023") == {MASK}


def test_malformed_weights_are_one_finding_and_no_crash(masked: Path, key_pair: tuple[Path, Path]) -> None:
    (masked / UNET).write_bytes((masked / UNET).read_bytes()[:-1])
    release_again(masked, key_pair[0])
    assert codes(verify(masked, key_pair[1])) == {"V020"}


def test_the_helper_makes_what_the_api_reads(masked: Path) -> None:
    mask = FreezeMask.parse(json.loads((masked / MASK).read_text()))
    assert mask.rows == dict(FROZEN)
    assert mask.tensors == Share(frozen=3, total=6)
