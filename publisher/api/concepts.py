"""What is to go and what is to stay, as the manifest names it and every step and check uses it."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from publisher.api.params import Params

Kind = Literal["object", "style", "person", "unsafe"]
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese and Korean letters: no space parts a word from what belongs to it."""
_LETTER = rf"[^\W{_UNSPACED}]"
_BORDER = rf"(?:(?<!{_LETTER})|(?!{_LETTER}))"
"""Pattern of a place where no letter of a word follows on another."""


class Concept(Params):
    """A concept with every prompt written out. The manifest's short forms have been expanded when plugins see it."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Name in the manifest, in claims and in the report."""
    kind: Kind = "object"
    """``object``, ``style``, ``person`` or ``unsafe``. Images of the last two are never stored."""
    name: str = Field(min_length=1)
    """The words for it in a prompt: ``"cigarette"``, ``"noto style"``."""
    synonyms: tuple[str, ...] = ()
    """Other words for it, which a paraphrase would use."""
    prompts: tuple[str, ...] = Field(min_length=1)
    """Plain prompts that ask for it."""
    paraphrases: tuple[str, ...] = ()
    """The same prompts with the synonyms in place of the name."""
    description: str = ""
    """A prompt that says what it looks like without naming it; empty: none."""
    images: tuple[str, ...] = ()
    """Reference images, relative to the manifest's folder; none: the base model generates them."""
    label: str = Field(min_length=1)
    """What the scorer calls it."""


class Scope(Params):
    """What one step, or one release, is about."""

    concepts: tuple[Concept, ...]
    """To go, in the manifest's order."""
    keep: tuple[Concept, ...] = ()
    """To stay: steps regularise on them, checks compare them with the base model."""
    keep_prompts: tuple[str, ...] = ()
    """Further texts to stay as they are, without a scorer's label."""
    others: tuple[Concept, ...] = Field(default=(), exclude=True)
    """To go by other steps. A step may refuse because of them; nothing that it makes may depend on them."""

    def concept(self, name: str) -> Concept:
        """Return the concept with this id, among those to go and those to stay.

        Raises:
            KeyError: there is none.
        """
        for concept in (*self.concepts, *self.keep):
            if concept.id == name:
                return concept
        raise KeyError(f"no concept has the id {name!r}")


def split_at_name(prompt: str, name: str) -> tuple[str, ...]:
    """Return the texts around a concept's name in a prompt: one more than there are names, the prompt alone for none.

    The name counts as whole words and in any letter case: "art" is in "Art, by hand", not in "a party", and its plural
    is another word. Any white space may stand between words of a name. Beside letters of scripts without spaces, such
    as Chinese, there are no whole words: there the name counts wherever it stands.
    """
    words = name.split()
    if not words:
        return (prompt,)
    return tuple(re.split(_BORDER + r"\s+".join(map(re.escape, words)) + _BORDER, prompt, flags=re.IGNORECASE))
