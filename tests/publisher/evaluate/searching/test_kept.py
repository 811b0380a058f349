"""What is kept of searches in the grey world: finds sealed or in clear, their token ids, and notes to go on from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import (
    Concept,
    Find,
    Scope,
    SearchTarget,
)
from publisher.evaluate.store import ImageStore
from publisher.evaluate.vault import Vault, seal
from support.grey import World, concept
from support.hunting import SECRET, Guess, leaky, only, rows, search, use


def test_finds_leave_as_salted_hashes_that_a_disclosure_opens(hunted: World, tmp_path: Path) -> None:
    hunted.setting = replace(hunted.setting, vault=Vault(tmp_path / "finds"))
    result = hunted.paint(leaky).evaluate(search())
    first = rows(result)[0]["finds"][0]
    assert "xyzzy" not in result.evidence["evidence/guess.jsonl"].decode()
    assert (first["find"], first["sha256"]) == (None, [])
    clear = json.loads((tmp_path / "finds" / "guess.jsonl").read_text().splitlines()[0])["finds"][0]["find"]
    assert clear["prompts"] == [SECRET]
    assert seal((tmp_path / "finds" / "salt").read_bytes(), Find.parse(clear)) == first["seal"]


def ids_of(self: Guess, params: Any, target: SearchTarget, concept: Concept, generator: Any) -> Iterator[Find]:
    chosen = target.tokens("a cat emoji")
    yield Find(kind="text", prompts=("a cat emoji",), token_ids=((chosen,),))
    yield Find(kind="text", prompts=("a cat",), token_ids=((chosen[:1],),))
    yield Find(kind="text", prompts=("a cat emoji", SECRET))


def test_a_find_of_text_has_the_ids_that_the_encoder_is_given(hunted: World, tokenizer: Any, tmp_path: Path) -> None:
    hunted.setting = replace(hunted.setting, vault=Vault(tmp_path / "finds"))
    use(hunted.paint(leaky), ids_of).evaluate(search(attack_params={"finds": 3}))
    stored = json.loads((tmp_path / "finds" / "guess.jsonl").read_text().splitlines()[0])
    finds = [Find.parse(one["find"]) for one in stored["finds"]]
    assert [one.typeable for one in finds] == [True, False, True]
    assert finds[2].token_ids == tuple((tuple(tokenizer(text).input_ids),) for text in ("a cat emoji", SECRET))
    assert finds[0].token_ids == finds[2].token_ids[:1] != finds[1].token_ids
    assert finds[0].token_ids[0][0][0] == tokenizer.bos_token_id


def test_text_that_stands_for_special_tokens_is_no_find(hunted: World) -> None:
    def end(self: Guess, params: Any, target: SearchTarget, concept: Concept, generator: Any) -> Iterator[Find]:
        yield Find(kind="text", prompts=(SECRET,))
        yield Find(kind="text", prompts=("a cat <|endoftext|> emoji",))

    record = only(use(hunted.paint(leaky), end).evaluate(search(gate=None)))
    assert (record.verdict, len(record.searches[0].finds)) == ("unknown", 1)
    assert "special tokens of the tokenizer" in record.searches[0].problem


def test_finds_are_published_where_the_manifest_says_so_but_never_of_persons(hunted: World) -> None:
    hunted.setting = replace(hunted.setting, publish_finds=True)
    found = rows(hunted.paint(leaky).evaluate(search()))[0]["finds"][0]
    assert found["find"]["prompts"] == [SECRET]
    assert len(found["sha256"]) == 24
    person = concept("cigarette", kind="person")
    hunted.scope = Scope(concepts=(person,), keep=(concept("cat", kind="person"),))
    assert rows(hunted.evaluate(search()))[0]["finds"][0]["find"] is None


def test_tensors_of_private_finds_lie_in_memory_alone(tmp_path: Path) -> None:
    vault, shown = Vault(tmp_path / "finds"), {"latents": torch.ones(2, 2)}
    private = vault.keep(shown, private=True)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert torch.equal(vault.tensors(private)["latents"], shown["latents"])  # type: ignore[index]
    assert vault.keep(shown) == private
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_a_second_run_searches_nothing_and_gives_the_same_bytes(hunted: World, tmp_path: Path) -> None:
    hunted.setting = replace(hunted.setting, vault=Vault(tmp_path / "finds"))
    first = hunted.paint(leaky).evaluate(search())
    generated = len(hunted.painters.generated)
    second = hunted.evaluate(search())
    assert (len(hunted.painters.generated), second.evidence, second.claims) == (generated, first.evidence, first.claims)


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(hunted: World, tmp_path: Path) -> None:
    hunted.setting = replace(hunted.setting, vault=Vault(tmp_path / "finds"))
    calls = []

    def killed(self: Guess, params: Any, target: SearchTarget, concept: Concept, generator: Any) -> Iterator[Find]:
        calls.append(concept.id)
        yield from Guess.search(self, params, target, concept, generator)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use(hunted.paint(leaky), killed).evaluate(search())
    resumed = hunted.evaluate(search())
    assert len(calls) == 5
    hunted.setting = replace(hunted.setting, store=ImageStore(tmp_path / "other", pytest.fail))
    assert hunted.evaluate(search()).evidence == resumed.evidence
