"""What authors of plugins test with: a contract for each kind, a very small model, a fake scorer, a release in process.

Importing it imports no torch. Nothing of it is needed at a release.
"""

from __future__ import annotations

from publisher.testing.battery import contract
from publisher.testing.fakes import FakeScorer
from publisher.testing.in_process import installed, release
from publisher.testing.plugin import SCOPE, BrokenRuleError
from publisher.testing.sample import sample_report
from publisher.testing.tiny import open_model, save_tiny_model

__all__ = [
    "SCOPE",
    "BrokenRuleError",
    "FakeScorer",
    "contract",
    "installed",
    "open_model",
    "release",
    "sample_report",
    "save_tiny_model",
]
