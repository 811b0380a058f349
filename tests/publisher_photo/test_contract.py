"""Scorers that read a network from files keep the contract of scorers."""

from __future__ import annotations

from pathlib import Path

from publisher.testing.battery import broken_rules
from publisher.testing.common import answer_all
from publisher.testing.plugin import PluginUnderTest
from publisher_photo.classifier import LabelledClassifier
from publisher_photo.zero_shot import ZeroShot


def test_scorers_of_networks_keep_the_contract(vit: Path, clip: Path) -> None:
    classes = {"cup": ["espresso", "cup"], "dog": ["tabby cat"]}
    texts = {"templates": {"object": ["a photo of {label}"]}, "others": {"object": ["a photo of a wall"]}}
    found = [
        PluginUnderTest(LabelledClassifier, {"weights": "vit", "classes": classes}, files={"vit": vit}),
        PluginUnderTest(ZeroShot, {"weights": "clip", **texts}, files={"clip": clip}),
    ]
    answer_all(found)
    assert [broken_rules(one) for one in found] == [{}, {}]
