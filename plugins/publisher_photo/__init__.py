"""Scorers for photographs and paintings: what is seen in an image, by networks whose weights the user names.

Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from publisher.api import Scorer, hookimpl


@hookimpl
def publisher_register_scorers() -> Sequence[type[Scorer[Any]]]:
    """Register ``zero-shot``, ``reference``, ``classifier``, ``nudenet``, ``open-nsfw`` and ``safety-checker``."""
    from publisher_photo.classifier import LabelledClassifier
    from publisher_photo.nudenet import NudeNet
    from publisher_photo.open_nsfw import OpenNsfw
    from publisher_photo.reference import NearestImages
    from publisher_photo.safety_checker import SafetyChecker
    from publisher_photo.zero_shot import ZeroShot

    return (ZeroShot, NearestImages, LabelledClassifier, NudeNet, OpenNsfw, SafetyChecker)
