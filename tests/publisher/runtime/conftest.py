"""The embedded model's networks in a pipeline for each test, which must leave them as they were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from publisher.runtime.pipelines import twin


@pytest.fixture
def loaded(pipeline: Any) -> Iterator[Any]:
    other = twin(pipeline)
    weights = {name: weight.clone() for name, weight in other.unet.state_dict().items()}
    yield other
    after = pipeline.unet.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in weights.items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in pipeline.unet.modules())
