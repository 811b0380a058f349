"""Damaged and hostile packages: refused, never a crash, never slow. The long form is ``make fuzz``."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import Observation, ScorerErrors, Tally, Trial, safetensors_bytes
from publisher.api.freeze_mask import FreezeMask
from publisher.builtin.metrics.curve_statistics import AgainstParams
from publisher.builtin.metrics.gaps import LossGap
from publisher.builtin.metrics.rates import ConceptRate, RateParams
from publisher.errors import PublisherError
from publisher.package import build, keys, sign
from publisher.package.layout import MAX_FINDINGS
from publisher.package.verify import Verification, verify
from support.evaluating import codes, release_again, resign
from support.fuzzing import COUNT, Mutant, content
from support.masks import mask_of
from support.packages import CREATED, evidence_row, finish, json_lines, report_data

SLOWEST = 10.0
"""Processor seconds that no mutant may take; the slowest is printed."""
LINES = {"cigarette.plain": [evidence_row(seed) for seed in range(60)]}
STEM = "lora_unet_mid_block_attentions_0_proj_in"


def trial(model: str, seed: int, loss: float) -> dict[str, Any]:
    return {
        "concept": "cigarette",
        "model": model,
        "seed": seed,
        "evaluation_steps": [0, 10],
        "hits": [0, 1],
        "images_per_evaluation": 2,
        "losses": [0.5, loss],
        "similarity": [],
        "full": 1.0,
        "problem": "",
    }


TRIALS = [
    trial(model, seed, loss + seed / 100) for model, loss in (("hardened", 0.4), ("before", 0.2)) for seed in (0, 1, 2)
]


def trial_row(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "check": "cigarette.lora",
        "model": "aa" * 32,
        "captions": ["a"],
        "prompts": ["a", "a"],
        "seeds": [0, 1],
        "trial": one,
        "labels": [["pencil", "pencil"], ["cigarette", "pencil"]],
        "sha256": [["bb"] * 2] * 2,
    }


def report() -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a report of two checks by the publisher's own metrics, and their evidence."""
    data = report_data()
    plain = data["claims"][0]["checks"][0]
    seen = [
        Observation(
            concept="cigarette",
            prompt=row["prompt"],
            seed=row["seed"],
            steps=row["steps"],
            guidance=row["guidance"],
            base=True,
            hardened=False,
            distance=row["distance"],
        )
        for row in LINES["cigarette.plain"]
    ]
    rate = ConceptRate()
    rate.errors = {"cigarette": ScorerErrors(source="", seen=Tally(hits=len(seen), n=len(seen)))}
    plain |= {"metric": "concept-rate", "measurement": rate.measure(RateParams(), seen).as_json()}
    gap = LossGap().read(AgainstParams(), [Trial.parse(one) for one in TRIALS]).as_json()
    training = plain | {
        "id": "cigarette.lora",
        "attack": "lora",
        "metric": "loss-gap",
        "unit": "loss",
        "better": "higher",
        "gate": {"lower_at_least": 0.1},
        "trials": TRIALS,
        "measurement": gap,
        "evidence": "lora.jsonl",
    }
    data["claims"][0]["checks"].append(training)
    evidence = {
        plain["evidence"]: json_lines(LINES["cigarette.plain"]),
        "lora.jsonl": json_lines(map(trial_row, TRIALS)),
    }
    for check in data["claims"][0]["checks"]:
        check["evidence_sha256"] = hashlib.sha256(evidence[check["evidence"]]).hexdigest()
    return data, evidence


def artifacts() -> dict[str, bytes]:
    """Return a membrane with its index, and a freeze mask."""
    weight = torch.frombuffer(bytearray(range(32)), dtype=torch.float32).view(2, 4)
    mask: FreezeMask = mask_of({"attn2.to_k.weight": weight}, {"attn2.to_k.weight": ((0, 1),)})
    membrane = safetensors_bytes(
        {
            f"{STEM}.lora_down.weight": torch.ones(1, 4),
            f"{STEM}.lora_up.weight": torch.ones(2, 1),
            f"{STEM}.alpha": torch.tensor(1.0),
        }
    )
    entry = {
        "concept": "cigarette",
        "file": "cigarette.safetensors",
        "sha256": hashlib.sha256(membrane).hexdigest(),
        "words": ["cigarette"],
        "texts": ["a cigarette"],
        "rank": 1,
    }
    index = {"membranes": 1, "mode": "bundle", "entries": [entry]}
    return {
        "freeze-mask.json": mask.as_file(),
        "membranes/cigarette.safetensors": membrane,
        "membranes/index.json": json.dumps(index).encode(),
    }


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory, model: dict[str, Path], key_pair: tuple[Path, Path]) -> Path:
    """A good package with all that a package can have."""
    folder = tmp_path_factory.mktemp("rich") / "tiny-1.2.0"
    build.lay_out(folder, model, artifacts())
    data, evidence = report()
    finish(folder, data, evidence=evidence, views={"index.html": b"<!doctype html>\n"})
    sign.sign(folder, keys.load_private(key_pair[0]), created=CREATED)
    found = verify(folder, key_pair[1])
    assert (found.findings, found.recomputed.checks) == ((), ["cigarette.plain", "cigarette.lora"])
    return folder


def mutants(rich: Path, tmp_path: Path, first: int, short: int) -> Iterator[tuple[Mutant, Path]]:
    for number in range(first, first + (COUNT or short)):
        folder = tmp_path / "mutant"
        shutil.rmtree(folder, ignore_errors=True)
        yield Mutant(number), Path(shutil.copytree(rich, folder))


class Clock:
    """Verifies, and remembers what took longest and which codes there were."""

    def __init__(self) -> None:
        self.slowest, self.seen = 0.0, Counter[str]()

    def verify(self, folder: Path, key: Path, what: object) -> Verification:
        began = time.process_time()
        try:
            found = verify(folder, key)
        except Exception as error:
            raise AssertionError(f"{what} crashed the verifier") from error
        seconds = time.process_time() - began
        assert seconds < SLOWEST, f"{what} took {seconds:.1f} s"
        assert len(found.findings) <= MAX_FINDINGS, what
        assert all(str(finding).isprintable() for finding in found.findings), what
        self.slowest = max(self.slowest, seconds)
        self.seen.update(codes(found) or {"verified"})
        return found

    def __str__(self) -> str:
        counted = ", ".join(f"{code} {count}" for code, count in sorted(self.seen.items()))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return f"slowest {self.slowest:.2f} s, process at most {peak} MiB; {counted}"


@pytest.mark.slow
def test_no_damaged_package_verifies(
    rich: Path, key_pair: tuple[Path, Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    good, clock, same = content(rich), Clock(), 0
    for mutant, folder in mutants(rich, tmp_path, 0, 80):
        mutant.damage(folder)
        if content(folder) == good:
            same += 1
            continue
        assert not clock.verify(folder, key_pair[1], mutant).ok, f"{mutant} verified"
    record_property("counted", f"unsigned mutants: {(COUNT or 80) - same} refused; {clock}")


@pytest.mark.slow
def test_no_signed_mutant_crashes_the_verifier_or_verifies_with_other_numbers(
    rich: Path, key_pair: tuple[Path, Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The publisher signs what a mutation left: attestations, digests and the report's files fit again.

    What verifies then may differ in words and configurations, but not in what was counted and decided.
    """
    good, clock = numbers(rich), Clock()
    for mutant, folder in mutants(rich, tmp_path, 1_000_000, 40):
        mutant.damage_content(folder)
        refit(folder)
        try:
            release_again(folder, key_pair[0])
        except (
            PublisherError,
            ValueError,
            TypeError,
            AttributeError,
            KeyError,
        ):  # a report that is none cannot be signed as one
            resign(folder, key_pair[0])
        if clock.verify(folder, key_pair[1], mutant).ok:
            assert numbers(folder) == good, f"{mutant} verified with other numbers"
    record_property("counted", f"signed mutants: {sum(clock.seen.values())} codes of {COUNT or 40}; {clock}")


def refit(folder: Path) -> None:
    """Name the evidence as it is now in the report, where there is a report: a mutant is to get that far."""
    path = folder / "release/reports/report.json"
    try:
        data = json.loads(path.read_bytes())
        for claim in data["claims"]:
            for check in claim["checks"]:
                evidence = (path.parent / check["evidence"]).read_bytes()
                check["evidence_sha256"] = hashlib.sha256(evidence).hexdigest()
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return
    path.write_text(json.dumps(data))


def numbers(folder: Path) -> list[Any]:
    """Return what the release says of each check, and of all."""
    data = json.loads((folder / "release/reports/report.json").read_bytes())
    found = [data["decision"]]
    for claim in data["claims"]:
        found.append(claim["verdict"])
        for check in claim["checks"]:
            found += [check["verdict"], check["measurement"]["hardened"], check["measurement"].get("base")]
    return found


def header(tensors: int) -> bytes:
    entries = {f"t{i}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(tensors)}
    text = json.dumps(entries, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + bytes(tensors)


def bomb(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


Files = Callable[[], dict[str, bytes]]
QUICK: dict[str, tuple[Files, str]] = {
    "a header that promises all": (lambda: {"unet/x.safetensors": b"\xff" * 8}, "V020"),
    "a header of objects": (lambda: {"unet/x.safetensors": bomb(b'{"a":[' + b"{}," * 2_700_000 + b"{}]}")}, "V020"),
    "a deep header": (lambda: {"unet/x.safetensors": bomb(b"[" * 1_000_000)}, "V020"),
    "deep JSON": (lambda: {"unet/x.json": b"[" * 1_000_000 + b"]" * 1_000_000}, "V021"),
    "a long number": (lambda: {"unet/x.json": b"1" * 1_000_000}, "V021"),
    "line ends": (lambda: {"release/x.jsonl": b"\r" * 5_000_000}, "V021"),
    "one file of objects": (lambda: {"unet/x.json": b"[" + b"{}," * 700_000 + b"{}]"}, "V040"),
}
LONG: dict[str, tuple[Files, str]] = {
    "60 MB of objects": (lambda: {"unet/x.json": b"[" + b"{}," * 20_000_000 + b"{}]"}, "V040"),
    "three of them": (lambda: {f"unet/x{i}.json": b"[" + b"{}," * 20_000_000 + b"{}]" for i in range(3)}, "V040"),
    "many keys": (lambda: {f"unet/x{i}.json": keyed(1_400_000) for i in range(9)}, "V040"),
    "lines of objects": (lambda: {"release/x.jsonl": b"{}\n" * 20_000_000}, "V040"),
    "twenty headers": (lambda: dict.fromkeys((f"unet/x{i}.safetensors" for i in range(20)), header(50_000)), "V040"),
    "metadata": (lambda: dict.fromkeys((f"unet/x{i}.safetensors" for i in range(20)), metadata(390_000)), "V040"),
    "text": (lambda: {f"release/x{i}.txt": b"a" * 60_000_000 for i in range(9)}, "V040"),
}


def keyed(keys: int) -> bytes:
    return json.dumps(dict.fromkeys(map(str, range(keys)), 1), separators=(",", ":")).encode()


def metadata(keys: int) -> bytes:
    text = {"__metadata__": dict.fromkeys(map(str, range(keys)), "")}
    return bomb(json.dumps(text, separators=(",", ":")).encode())


@pytest.mark.slow
def test_hostile_packages_are_refused_soon_although_signed(
    rich: Path, key_pair: tuple[Path, Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    clock = Clock()
    battery = {**QUICK, **LONG} if COUNT else QUICK
    for name, (files, code) in battery.items():
        folder = tmp_path / "hostile"
        shutil.copytree(rich, folder)
        for path, data in files().items():
            (folder / path).write_bytes(data)
        resign(folder, key_pair[0])
        began = time.process_time()
        found = verify(folder, key_pair[1])
        clock.slowest = max(clock.slowest, time.process_time() - began)
        clock.seen.update(codes(found) - {"V031"})
        assert code in codes(found), name
        assert clock.slowest < 60, name
        shutil.rmtree(folder)
    record_property("counted", f"hostile packages: {len(battery)} refused; {clock}")
