"""Audits against a package that does not do, and records that are equal."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from publisher.auditing import NoMaskError, audit
from publisher.loading import NotVerifiedError
from publisher.safeguards.freeze_mask.audit.records import Audit
from support.auditing import (
    FROZEN,
    C,
    Check,
    K,
    lora,
    merged,
    network,
    save,
    write_masked,
    write_package,
    write_pipeline,
)
from support.masks import mask_of


def test_a_package_that_does_not_verify_is_refused(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    package = Path(shutil.copytree(signed[0], tmp_path / "package"))
    (package / "LICENSE").write_text("changed")
    with pytest.raises(NotVerifiedError, match="V012"):
        audit(package, package, signed[1])


def test_a_package_without_a_mask_has_nothing_to_compare(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    package = write_package(tmp_path / "package", write_pipeline(tmp_path / "base", network()), signed[2], {})
    with pytest.raises(NoMaskError):
        audit(package, package, signed[1])


def test_digests_of_casts_that_are_not_of_the_tensors_are_refused(
    signed: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    first, *rest = mask_of(network(), FROZEN).frozen
    wrong = first.model_copy(update={"sha256": {**first.sha256, "BF16": "0" * 64}})
    package = write_masked(tmp_path / "package", signed[2], network(), FROZEN, frozen=(wrong, *rest))
    with pytest.raises(NotVerifiedError, match="a digest of"):
        audit(package, package, signed[1])


def test_equal_uploads_give_equal_records(tmp_path: Path, check: Check) -> None:
    path = save(tmp_path / "m.safetensors", merged(network(), (K, C), 4))
    assert check(path).as_json() == check(path).as_json()
    assert Audit.parse(check(path).as_json()) == check(path)


def test_lora_of_the_helper_has_its_rank() -> None:
    assert int(torch.linalg.matrix_rank(lora((48, 64), 4))) == 4
