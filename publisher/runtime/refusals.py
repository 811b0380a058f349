"""Prompts that are never generated: sexual content together with minors.

Public prompt lists contain such rows. They are dropped before anything is generated, and counted in the record of the
check. The word lists are small and English: a net with holes, which is no reason to do without it. It errs towards
dropping ("girl", "boy").
"""

from __future__ import annotations

import re
import unicodedata

from publisher.api import Concept

_SEXUAL = (
    "sex",
    "sexual",
    "sexually",
    "sexy",
    "sexualized",
    "sexualised",
    "nude",
    "nudes",
    "nudity",
    "naked",
    "topless",
    "bottomless",
    "undressed",
    "undressing",
    "unclothed",
    "nsfw",
    "porn",
    "porno",
    "pornography",
    "pornographic",
    "erotic",
    "erotica",
    "hentai",
    "ecchi",
    "lewd",
    "explicit",
    "fetish",
    "bdsm",
    "orgasm",
    "intercourse",
    "masturbate",
    "masturbating",
    "masturbation",
    "genital",
    "genitals",
    "genitalia",
    "penis",
    "vagina",
    "vulva",
    "pussy",
    "cock",
    "dick",
    "breast",
    "breasts",
    "boobs",
    "tits",
    "nipple",
    "nipples",
    "cleavage",
    "lingerie",
    "bikini",
    "thong",
    "panties",
    "underwear",
    "striptease",
    "stripper",
    "seductive",
    "seductively",
    "sensual",
    "aroused",
    "cum",
)
_MINORS = (
    "child",
    "children",
    "childlike",
    "kid",
    "kids",
    "minor",
    "minors",
    "underage",
    "underaged",
    "baby",
    "babies",
    "infant",
    "infants",
    "toddler",
    "toddlers",
    "preschooler",
    "schoolgirl",
    "schoolgirls",
    "schoolboy",
    "schoolboys",
    "schoolchild",
    "schoolchildren",
    "preteen",
    "preteens",
    "tween",
    "tweens",
    "teen",
    "teens",
    "teenage",
    "teenaged",
    "teenager",
    "teenagers",
    "adolescent",
    "adolescents",
    "juvenile",
    "girl",
    "girls",
    "boy",
    "boys",
    "daughter",
    "daughters",
    "loli",
    "lolita",
    "lolicon",
    "shota",
    "shotacon",
    "jailbait",
    "prepubescent",
    "pubescent",
    "youngster",
    "kindergarten",
    "pedo",
    "pedophile",
    "pedophilia",
)
_AGE = r"(?:[0-9]|1[0-7])\s*[- ]?\s*(?:years?|yrs?|yo|y\.o\.|y/o)\b"
_SEXUAL_WORDS = re.compile(rf"\b(?:{'|'.join(_SEXUAL)})\b")
_MINOR_WORDS = re.compile(rf"\b(?:{'|'.join(_MINORS)})\b|(?<![0-9]){_AGE}")
LEAST_LETTERS = 4
"""Letters of the shortest word that is sought inside others: shorter ones stand in too many."""
_LONG_SEXUAL = re.compile("|".join(word for word in _SEXUAL if len(word) >= LEAST_LETTERS))
_LONG_MINOR = re.compile("|".join(word for word in _MINORS if len(word) >= LEAST_LETTERS))


def is_refused(prompt: str, concept: Concept) -> bool:
    """Return whether the prompt combines sexual content with minors, and must not be generated.

    A concept of the kind ``unsafe`` counts as sexual content whatever its prompt says.
    """
    text = _plain(prompt)
    asked = _plain(" ".join((concept.name, *concept.synonyms)))
    sexual = concept.kind == "unsafe" or _SEXUAL_WORDS.search(f"{text} {asked}")
    minor = _MINOR_WORDS.search(f"{text} {asked}")
    return bool(sexual and minor)


def is_refused_candidate(text: str, concept: Concept) -> bool:
    """Return whether a program that searches must not try a text: it errs further towards dropping.

    Words are also sought across blanks and inside other words, because a search puts pieces of words together.
    """
    joined = re.sub(r"\W+", "", _plain(text))
    asked = _plain(" ".join((concept.name, *concept.synonyms)))
    sexual = concept.kind == "unsafe" or _LONG_SEXUAL.search(joined) or _SEXUAL_WORDS.search(asked)
    minor = _LONG_MINOR.search(joined) or _MINOR_WORDS.search(asked)
    return is_refused(text, concept) or bool(sexual and minor)


def _plain(text: str) -> str:
    """Take away accents, full-width forms, invisible characters and underscores."""
    if text.isascii():
        return text.lower().replace("_", " ")
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    visible = "".join(c for c in decomposed if unicodedata.category(c) not in ("Mn", "Cf"))
    return visible.replace("_", " ")
