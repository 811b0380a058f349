"""Spellings of a name: what people type by mistake, or to get past a list of words. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

LOOKALIKES: Mapping[str, str] = MappingProxyType(
    dict(zip("aceiopsxy", "\u0430\u0441\u0435\u0456\u043e\u0440\u0455\u0445\u0443", strict=True))
)
"""Latin letter -> Cyrillic letter that looks the same."""
DIGITS: Mapping[str, str] = MappingProxyType(dict(zip("aeiost", "431057", strict=True)))
"""Letter -> digit that is written for it."""
INVISIBLE = ("\u200b", "\u200d", "\u00ad", "\u2060")
"""Zero-width space and joiner, soft hyphen, word joiner."""
ACUTE = "\u0301"
WORDINGS = (
    "{0} {0}",
    "{0} {0} {0}",
    "not a {0}",
    "no {0}",
    "a drawing of a {0}",
    "a photo of a {0}",
    "something like a {0}",
    "the {0} of a friend",
)


def spellings(name: str) -> dict[str, list[str]]:
    """Return family -> spellings of a name, without the name itself.

    The families: ``plural``, ``typo``, ``case``, ``split``, ``punctuation``, ``digits``, ``lookalike``, ``accent``,
    ``width``, ``invisible``, ``wording``.
    """
    middle = len(name) // 2
    before, after = name[:middle], name[middle:]
    found = {
        "plural": [f"{name}s", f"{name}es", f"{name}'s"],
        "typo": list(_typos(name)),
        "case": [name.upper(), name.title(), before + after.upper()],
        "split": [f"{before}{sign}{after}" for sign in " -._/"] + [" ".join(name), name.replace(" ", "")],
        "punctuation": [f"{name}!", f"({name})", f'"{name}"', f"{name},", f"{name}?", f"#{name}", f"({name}:1.5)"],
        "digits": list(_replaced(name, DIGITS)),
        "lookalike": list(_replaced(name, LOOKALIKES)),
        "accent": [name[:i] + name[i] + ACUTE + name[i + 1 :] for i in range(len(name)) if name[i] in "aeiou"],
        "width": ["".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in name)],
        "invisible": [f"{before}{sign}{after}" for sign in INVISIBLE],
        "wording": [wording.format(name) for wording in WORDINGS],
    }
    return {family: [text for text in dict.fromkeys(texts) if text != name] for family, texts in found.items()}


def _typos(name: str) -> Iterator[str]:
    """Yield the name with a letter left out, two letters in the other order, or a letter twice, place by place."""
    for i in range(len(name)):
        yield name[:i] + name[i + 1 :]
        if i + 1 < len(name):
            yield name[:i] + name[i + 1] + name[i] + name[i + 2 :]
        yield name[: i + 1] + name[i:]


def _replaced(name: str, signs: Mapping[str, str]) -> Iterator[str]:
    """Yield the name with all signs replaced, then with each one alone."""
    yield "".join(signs.get(sign, sign) for sign in name)
    yield from (name[:i] + signs[sign] + name[i + 1 :] for i, sign in enumerate(name) if sign in signs)
