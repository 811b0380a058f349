"""The publisher's own metrics, as a reader's machine finds them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from publisher.errors import PrerequisiteError
from publisher.registry import own


def test_only_the_publishers_own_package_is_imported_and_no_torch() -> None:
    code = (
        "import sys; from publisher.registry.own import own_metrics; print(*sorted(own_metrics()));"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    metrics, modules = (set(line.split()) for line in out.splitlines())
    assert {"concept-rate", "kept-accuracy", "t50-ratio", "selectivity"} <= metrics
    assert "publisher" in modules
    assert not {name for name in modules if name.startswith("publisher_")} | modules & {"torch", "scipy", "numpy"}


def test_missing_metrics_are_an_error_and_no_silent_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "distributions", lambda: ())
    own.own_metrics.cache_clear()
    with pytest.raises(PrerequisiteError, match="own metrics are missing"):
        own.own_metrics()
    own.own_metrics.cache_clear()
