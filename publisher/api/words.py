"""How near two words are in a model's text space, read without torch: from the first text encoder's token embeddings.

A step that needs "something of the same sort" finds it here when it is planned, before any weights are loaded. The mean
embedding of a word's tokens stands for the word; the mean of all words that are compared is taken off, because token
embeddings have much in common. No attention is run: on the embedded model the nearest words are mostly those that the
encoder's own output gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from publisher.api.concepts import Concept, Scope
from publisher.api.families import Anatomy
from publisher.api.header import HeaderError, read_spans
from publisher.api.models import ModelInfo
from publisher.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

_TABLES = ("token_embedding.weight", "embed_tokens.weight", "shared.weight")
"""Endings of the names under which text encoders keep their token embeddings."""


class WordFiles(Protocol):
    """What words are read from: a :class:`publisher.api.ModelInfo`, or any folder of a model."""

    @property
    def anatomy(self) -> Anatomy:
        """The parts by name."""

    def base_files(self, component: str) -> Path:
        """Return the folder with a component's files."""


class WordSpace:
    """The words of a model's first text encoder.

    Args:
        model: any state of it; the text encoder's files are read where the base model has them.
    """

    def __init__(self, model: WordFiles) -> None:
        if not model.anatomy.text_encoders:
            raise ModelError("there is no text encoder to read words with")
        part = model.anatomy.text_encoders[0]
        self._encoder, self._tokenizer = model.base_files(part.component), model.base_files(part.tokenizer)

    def vector(self, word: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the mean embedding of a word's tokens, ``(d,)`` float64.

        Raises:
            ModelError: the word has no tokens, or the files cannot be read.
        """
        import numpy as np
        from safetensors import SafetensorError

        ids = self._tokens(word)
        if not ids:
            raise ModelError(f"{word!r} has no tokens", where=str(self._tokenizer))
        try:
            rows = np.concatenate([self._table[i : i + 1] for i in ids])
        except (AttributeError, TypeError, ValueError, SafetensorError) as error:  # numpy has no floats of eight bits
            what = f"the token embeddings cannot be read without torch: {error}"
            hint = "Name the words yourself, where a step would choose them."
            raise ModelError(what, where=str(self._encoder), hint=hint) from error
        if rows.dtype == np.uint16:  # bfloat16: the first half of a float32
            rows = (rows.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(rows.astype(np.float64).mean(axis=0))

    def nearest(self, word: str, others: Sequence[str]) -> list[tuple[str, float]]:
        """Return the other words with their cosines to this one, nearest first; equal ones in their order.

        Args:
            word: that is compared.
            others: at least two, or there is nothing to centre on and the order is theirs.

        Raises:
            ModelError: see :meth:`vector`.
        """
        import numpy as np

        vectors = np.array([self.vector(one) for one in (word, *others)])
        if len(others) > 1:
            vectors -= vectors[1:].mean(axis=0)
        sizes = np.linalg.norm(vectors, axis=1)
        cosines = vectors[1:] @ vectors[0] / np.maximum(sizes[1:] * sizes[0], np.finfo(float).tiny)
        order = np.argsort(-cosines, kind="stable")
        return [(others[i], float(cosines[i])) for i in order]

    def _tokens(self, word: str) -> list[int]:
        encoding: list[int] = self._words.encode(word, add_special_tokens=False).ids
        return encoding

    @cached_property
    def _words(self) -> Any:
        from tokenizers import Tokenizer

        file = self._tokenizer / "tokenizer.json"
        try:
            found = Tokenizer.from_file(str(file)) if file.is_file() else _clip_tokenizer(self._tokenizer)
        except Exception as error:  # the library raises its own, without a common class
            raise ModelError(f"the tokenizer cannot be read: {error}", where=str(self._tokenizer)) from error
        found.no_padding()
        found.no_truncation()
        return found

    @cached_property
    def _table(self) -> Any:
        """The token embeddings, of which rows are read when they are asked for; bfloat16 as numbers of 16 bits."""
        import numpy as np
        from safetensors import SafetensorError, safe_open

        for path in sorted(self._encoder.glob("*.safetensors")):
            try:
                with safe_open(path, "np") as file:
                    name = next((key for key in file.keys() if key.endswith(_TABLES)), None)  # noqa: SIM118 - no dict
                    if name is None:
                        continue
                    found = file.get_slice(name)
                    if found.get_dtype() != "BF16":
                        return found
                    shape = tuple(found.get_shape())
                return np.memmap(path, "<u2", "r", read_spans(path)[name][0], shape)
            except (OSError, HeaderError, SafetensorError) as error:
                raise ModelError(f"cannot be read: {error}", where=str(path)) from error
        raise ModelError("holds no token embeddings that are known", where=str(self._encoder))


def stand_ins(concepts: Iterable[Concept], scope: Scope, model: ModelInfo) -> dict[str, str]:
    """Return concept's id -> name of the kept concept of the same kind that best takes its place.

    An object reads as the nearest one: so the least is changed. A style reads as the one farthest from it: styles that
    are near look alike too, and then the old one is still seen in the new one. Names that have a word in common with
    the concept's are left out: "fork and knife" would bring "knife" back. What goes never stands in for anything. A
    concept of whose kind nothing is kept gets no words: it reads as the empty prompt.

    Args:
        concepts: that go.
        scope: what is to stay.
        model: its text encoder's files are read, if there is something to choose from.

    Raises:
        ModelError: the text encoder's files cannot be read.
    """
    space: WordSpace | None = None
    found = {}
    for concept in concepts:
        own = (concept.name, *concept.synonyms)
        kept = (other.name for other in scope.keep if other.kind == concept.kind)
        names = [name for name in dict.fromkeys(kept) if not shares_a_word(own, (name,))]
        if names:
            space = space or WordSpace(model)
        by_nearness = space.nearest(concept.name, names) if names and space else [("", 0.0)]
        found[concept.id] = by_nearness[-1 if concept.kind == "style" else 0][0]
    return found


def neighbours(scope: Scope, model: ModelInfo) -> tuple[str, ...]:
    """Return the ids of the kept concepts, those first that read most like one of the same kind that goes.

    Args:
        scope: what goes and what stays.
        model: its text encoder's files are read.

    Raises:
        ModelError: the text encoder's files cannot be read.
    """
    space = WordSpace(model)
    near = dict.fromkeys((concept.id for concept in scope.keep), -1.0)
    for concept in scope.concepts:
        same = {other.id: other.name for other in scope.keep if other.kind == concept.kind}
        cosines = dict(space.nearest(concept.name, tuple(dict.fromkeys(same.values()))))
        near |= {name: max(near[name], cosines[words]) for name, words in same.items()}
    return tuple(sorted(near, key=lambda name: -near[name]))


def kept_by_nearness(concept: Concept, scope: Scope, model: WordFiles) -> tuple[Concept, ...]:
    """Return the kept concepts of a concept's kind, those first that read most like it.

    Names that have a word in common with the concept's come last: "water pistol" shows a pistol.

    Args:
        concept: that is compared.
        scope: what stays.
        model: its text encoder's files are read, if there is something to choose from.

    Raises:
        ModelError: the text encoder's files cannot be read.
    """
    own, kept = (concept.name, *concept.synonyms), [one for one in scope.keep if one.kind == concept.kind]
    others = [one for one in kept if one.id != concept.id]
    if len(others) < 2:
        return tuple(others)
    names = tuple(dict.fromkeys(one.name for one in others))
    places = {name: place for place, (name, _) in enumerate(WordSpace(model).nearest(concept.name, names))}
    return tuple(sorted(others, key=lambda one: (shares_a_word(own, (one.name,)), places[one.name])))


def shares_a_word(first: Iterable[str], second: Iterable[str]) -> bool:
    """Tell whether two sets of names have a word in common, such as ``"knife"`` and ``"fork and knife"``."""
    return not _split(first).isdisjoint(_split(second))


def _split(names: Iterable[str]) -> set[str]:
    return {word for name in names for word in name.casefold().split() if len(word) > 2 or not word.isascii()}


def _clip_tokenizer(folder: Path) -> Any:
    """Make the tokenizer of CLIP from its vocabulary and merges, as older folders have it."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    merges = [(left, right) for left, right in pairs]
    model = models.BPE(vocabulary, merges, end_of_word_suffix="</w>", continuing_subword_prefix="")
    found = Tokenizer(model)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    found.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    pieces = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    split = pre_tokenizers.Split(pieces, behavior="removed", invert=True)
    found.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return found
