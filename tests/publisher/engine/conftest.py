"""A toy step that nobody has run yet."""

from __future__ import annotations

import pytest

from support.toys import Add


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Add.runs = 0
