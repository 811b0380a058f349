"""The attacks of the publisher: those that ask, put weights back, train, or search. No torch."""

from __future__ import annotations

from typing import Any

from publisher.api import Attack
from publisher.builtin.attacks.asking import ASKING
from publisher.builtin.attacks.derived import DerivedEmbedding
from publisher.builtin.attacks.enumeration import TokenEnumeration
from publisher.builtin.attacks.inversion import ConceptInversion
from publisher.builtin.attacks.junk import JunkWord
from publisher.builtin.attacks.latents import Handover, LatentInversion
from publisher.builtin.attacks.negative import NegativePrompt
from publisher.builtin.attacks.pictures import Completion, Img2Img
from publisher.builtin.attacks.probe import NoiseProbe
from publisher.builtin.attacks.ring_a_bell import RingABell
from publisher.builtin.attacks.seeds import SeedSearch
from publisher.builtin.attacks.token_search import TokenSearch
from publisher.builtin.attacks.training import TRAINING
from publisher.builtin.attacks.weights import WEIGHTS
from publisher.builtin.attacks.word_fuzz import WordFuzz

ATTACKS: tuple[type[Attack[Any]], ...] = (
    *ASKING,
    *WEIGHTS,
    *TRAINING,
    WordFuzz,
    SeedSearch,
    NegativePrompt,
    TokenEnumeration,
    JunkWord,
    DerivedEmbedding,
    ConceptInversion,
    TokenSearch,
    RingABell,
    Img2Img,
    Completion,
    Handover,
    LatentInversion,
    NoiseProbe,
)
