"""What a report says of a freeze mask has to be what the mask beside it says, even if both are signed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import MaskRecord
from publisher.package import build, keys, sign
from publisher.package.verify import Verification, verify
from support.evaluating import REPORT
from support.masks import mask_of
from support.packages import CREATED, finish, report_data

NAME = "attn2.to_k.weight"
WEIGHT = torch.frombuffer(bytearray(range(32)), dtype=torch.float32).view(2, 4)
MASK = mask_of({NAME: WEIGHT}, {NAME: ()}, others={"seed-1": {NAME: ()}})


@pytest.fixture
def verified(tmp_path: Path, model: dict[str, Path], key_pair: tuple[Path, Path]) -> Any:
    """Build, sign and verify a package with these artifacts and this record of its mask."""

    def run(artifacts: dict[str, bytes], record: MaskRecord | None) -> Verification:
        folder = tmp_path / "made"
        build.lay_out(folder, model, artifacts)
        finish(folder, {**report_data(), "freeze_mask": record.as_json() if record else None})
        sign.sign(folder, keys.load_private(key_pair[0]), created=CREATED)
        return verify(folder, key_pair[1])

    return run


def test_a_report_that_describes_its_mask_passes(verified: Any) -> None:
    assert verified({"freeze-mask.json": MASK.as_file()}, MaskRecord.of(MASK)).findings == ()


def test_a_report_that_describes_no_mask_passes(verified: Any) -> None:
    assert verified({}, None).findings == ()


@pytest.mark.parametrize(
    ("artifacts", "changes"),
    [
        ({}, {}),
        ({"freeze-mask.json": MASK.as_file()}, {"granularity": "row"}),
        ({"freeze-mask.json": MASK.as_file()}, {"others": {}}),
        ({"freeze-mask.json": MASK.as_file()}, {"largest": ()}),
    ],
    ids=["no mask", "other granularity", "other masks", "other tensors"],
)
def test_a_report_about_another_mask_is_refused_although_signed(
    verified: Any, artifacts: dict[str, bytes], changes: dict[str, Any]
) -> None:
    found = verified(artifacts, MaskRecord.of(MASK).model_copy(update=changes))
    assert [(finding.path, finding.message) for finding in found.findings] == [
        (REPORT, "describes a freeze mask that release/freeze-mask.json is not")
    ]
