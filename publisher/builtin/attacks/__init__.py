"""The attacks that come with the publisher: those that ask, those that put weights back, those that train. No torch."""

from __future__ import annotations

from typing import Any

from publisher.api import Attack
from publisher.builtin.attacks.asking import ASKING
from publisher.builtin.attacks.training import TRAINING
from publisher.builtin.attacks.weights import WEIGHTS

ATTACKS: tuple[type[Attack[Any]], ...] = (*ASKING, *WEIGHTS, *TRAINING)
