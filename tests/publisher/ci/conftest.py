"""A report that failed, as a folder beside the manifest that it was made from."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

import pytest

from publisher.api import ReleaseReport
from publisher.builtin.reports.json_record import JsonRecord
from support.releasing import write

SAMPLES = Path(__file__).parents[1] / "report"


@pytest.fixture(scope="session")
def refused() -> ReleaseReport:
    sys.path.insert(0, str(SAMPLES))
    return importlib.import_module("report_samples").failed()  # type: ignore[no-any-return]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: ReleaseReport) -> Path:
    """The current folder, as a checkout: ``manifest.yaml`` and ``report``."""
    monkeypatch.chdir(tmp_path)
    checks = [{"id": "synonyms.cigarette", "attack": "paraphrase", "metric": "concept-rate", "concepts": ["cigarette"]}]
    gates = {"kept.pencil": {"lower_at_least": -0.5}}
    manifest = write(tmp_path / "manifest.yaml", evaluate={"scorer": "emoji", "gates": gates, "checks": checks})
    manifest.write_text(manifest.read_text().replace('"checks"', '\n"checks"').replace('"steps"', '\n"steps"'))
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    (tmp_path / "report").mkdir()
    record = refused.model_copy(update={"manifest_sha256": digest})
    (tmp_path / "report" / "report.json").write_bytes(JsonRecord().render(record))
    return tmp_path
