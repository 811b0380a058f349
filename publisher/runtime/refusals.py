"""Prompts that are never generated: sexual content together with minors.

Public prompt lists contain such rows. They are dropped before anything is generated, and counted in the record of the
check. The word lists are small and English: a net with holes, which is no reason to do without it. It errs towards
dropping ("girl", "boy").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

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
MOST_PIECES = 4
"""Pieces of a word in a row that are put together again; what is longer is sought inside all that is joined."""
LEAST_TYPED = 5
"""Letters of the shortest word that is known with one left out: shorter ones become other words."""
_HOLDING = (
    "between",
    "boysenberry",
    "canteen",
    "cockatoo",
    "cockpit",
    "cockroach",
    "cocktail",
    "eighteen",
    "eighteenth",
    "infantry",
    "kidskin",
    "mangosteen",
    "minority",
    "nineteen",
    "nineteenth",
    "peacock",
    "pedometer",
    "shuttlecock",
    "torpedo",
    "torpedoe",
    "velveteen",
)
"""Ordinary words, without a plural's s, that have one of the lists inside, and are no piece of any."""
_NEAR = ("beast", "beasts", "genial", "hong", "iris", "minos", "pens", "puss", "shot", "tens", "tong", "tripper")
"""Ordinary words that are one of the lists with a letter left out."""
_LOOKALIKES = str.maketrans(
    dict(
        zip(
            "\u0430\u0432\u0435\u04bb\u0456\u0458\u043a\u043c\u043d\u043e\u0440\u0441\u0455\u0442\u0443\u0445\u0501\u051b\u051d\u04cf"
            "\u03b1\u03b5\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",
            "abehijkmhopcstyxdqwlaeikvoptux",
            strict=True,
        )
    )
)
"""Cyrillic and Greek small letters -> the Latin one that looks like them, or like their capitals."""
_LATIN = re.compile(r"LATIN (?:.* )?LETTER (?:SMALL CAPITAL |DOTLESS |SCRIPT )?([A-Z])(?: WITH .*)?")
"""Unicode's name of a Latin letter in another shape, with a stroke or a hook."""
_DIGITS = str.maketrans("0134578@$", "oieastbas")
"""What is written for letters; one also stands for l, so both are read as i where whole words are compared."""


def is_refused(prompt: str, concept: Concept) -> bool:
    """Return whether the prompt combines sexual content with minors, and must not be generated.

    A concept of the kind ``unsafe`` counts as sexual content whatever its prompt says.
    """
    text = _plain(prompt)
    asked = _asked(concept)
    sexual = concept.kind == "unsafe" or _SEXUAL_WORDS.search(f"{text} {asked}")
    minor = _MINOR_WORDS.search(f"{text} {asked}")
    return bool(sexual and minor)


def is_refused_candidate(text: str, concept: Concept) -> bool:
    """Return whether a program that searches must not try a text: it errs further towards dropping.

    A search puts pieces of words together, and other signs in the place of letters. So words are also sought across
    blanks, inside other words, with digits for letters, and with a typing mistake.
    """
    asked = _asked(concept)
    plain = _plain(text)
    sexual = concept.kind == "unsafe" or _SEXUAL_SOUGHT.within(plain) or _SEXUAL_WORDS.search(asked)
    minor = sexual and (_MINOR_SOUGHT.within(plain) or _MINOR_WORDS.search(asked))
    return bool(minor) or is_refused(text, concept)


class _Sought:
    """A list of words as a search may write them."""

    def __init__(self, words: Sequence[str]) -> None:
        self._long = re.compile("|".join(word for word in words if len(word) >= LEAST_LETTERS))
        self._whole = {_one_l(form) for word in words for form in (word, f"{word}s", f"{word}es")}
        self._typed = {_one_l(text) for word in words for text in _typos(word)}

    def within(self, plain: str) -> bool:
        """Return whether a text, without accents and look-alikes, has one of the words."""
        read = plain.translate(_DIGITS)
        found = [piece for piece in re.findall(r"\w+", read) if piece.removesuffix("s") not in _HOLDING]
        if self._long.search("".join(found)):
            return True
        pieces = list(map(_one_l, found))
        if any(one in self._typed for one, piece in zip(pieces, found, strict=True) if piece not in _NEAR):
            return True
        runs = ("".join(pieces[i : i + n]) for n in range(1, MOST_PIECES + 1) for i in range(len(pieces)))
        if any(run in self._whole for run in runs):
            return True
        return not self._whole.isdisjoint(map(_one_l, re.findall(r"[^\W\d]+", plain)))  # a number after a word


def _typos(word: str) -> Iterator[str]:
    """Yield a word with a letter twice, two in the other order, or, where it is long enough, one left out."""
    for i in range(len(word)):
        yield word[: i + 1] + word[i:]
        if i + 1 < len(word):
            yield word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        if len(word) >= LEAST_TYPED:
            yield word[:i] + word[i + 1 :]


def _one_l(word: str) -> str:
    """Write i for l: a one, and a capital i, stand for either."""
    return word.replace("l", "i")


_SEXUAL_SOUGHT, _MINOR_SOUGHT = _Sought(_SEXUAL), _Sought(_MINORS)


def _asked(concept: Concept) -> str:
    return _plain(" ".join((concept.name, *concept.synonyms)))


def _plain(text: str) -> str:
    """Take away accents, other shapes and scripts of letters, invisible characters and underscores."""
    if text.isascii():
        return text.lower().replace("_", " ")
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    visible = "".join(_latin(c) for c in decomposed if unicodedata.category(c) not in ("Mn", "Cf"))
    return visible.translate(_LOOKALIKES).replace("_", " ")


def _latin(sign: str) -> str:
    """Return the plain letter of a Latin one in another shape; anything else as it is."""
    named = None if sign.isascii() else _LATIN.fullmatch(unicodedata.name(sign, ""))
    return named[1].lower() if named else sign
