"""What the steps reach by their defaults, on concepts of the embedded model that no default was chosen on.

    python benchmarks/defaults.py [--step immunize] [--with JSON] [--out out/defaults] [CONCEPT[,CONCEPT...] ...]

The manifests name nothing but concepts with their synonyms. ``erase``, ``immunize`` and ``freeze-mask`` are released
one after the other for each concept, ``membrane-bundle`` alone for several at once (a comma joins them): each has its
own membrane. A release that a gate refuses is measured all the same. Prints all tables, with 95% intervals. What was
released already is read from ``--out``.

``--step freeze-mask`` measures the mask alone, on the same weights with the same trainings, in a quarter of the time:
few images are generated, and the other steps' claims say nothing. ``--with`` gives the last step other parameters
than its defaults, such as ``'{"lam": 1}'``, to choose defaults by: on concepts that are in no table, and with an
``--out`` of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

OTHERS = ("syringe", "pill", "wine", "clown", "rocket", "dog", "tulip", "crown", "fluent")
RELEASES = {
    "immunize": OTHERS,
    "freeze-mask": OTHERS,
    "membrane": ("syringe", "pill,wine,clown,rocket", "dog,tulip,crown,heart", "fluent,firefox"),
}
STEPS = {
    "immunize": ("erase", "immunize", "freeze-mask"),
    "freeze-mask": ("erase", "immunize", "freeze-mask"),
    "membrane": ("membrane-bundle",),
}
MASK = {
    "selectivity of the mask": "freeze-mask.selective",
    "gain left, of a random mask's": "freeze-mask.random",
    "innocent's gain kept": "freeze-mask.innocents",
}
COLUMNS = {
    "immunize": {
        "erased": "erase.{}.plain",
        "re-learning, times the steps": "immunize.{}.lora",
        **MASK,
        "kept, change": "kept",
    },
    "freeze-mask": MASK,
    "membrane": {
        "plain": "membrane-bundle.{}.plain",
        "synonyms": "membrane-bundle.{}.paraphrase",
        "weights alone": "membrane-bundle.{}.without",
        "kept, change": "membrane-bundle.kept",
        "kept, rms": "membrane-bundle.kept-distance",
    },
}


def manifest(name: str, concepts: list[str], steps: tuple[str, ...], tried: dict[str, Any]) -> dict[str, Any]:
    """Return a release by defaults, the last step with what is tried."""
    from publisher_emoji import vocabulary

    words = vocabulary()

    def written(concept: str) -> dict[str, Any]:
        if concept in words.style_names:
            return {"id": concept, "kind": "style"}
        return {"id": concept, "synonyms": list(words.object(concept).synonyms)}

    return {
        "release": {"name": name, "version": "1.0.0", "license": "CC-BY-4.0"},
        "model": "embedded:emoji",
        "concepts": [written(concept) for concept in concepts],
        "steps": [{"use": step, "with": tried if step == steps[-1] else {}} for step in steps],
    }


def mask_alone(document: dict[str, Any]) -> dict[str, Any]:
    """Return a release whose mask is measured as in ``document``, and everything else by a few images."""
    *before, mask = document["steps"]
    few = {"check": {"images_per_evaluation": 1}}
    asked = [f"erase.{one['id']}.plain" for one in document["concepts"]]
    asked += [f"erase.{one['id']}.paraphrase" for one in document["concepts"] if "synonyms" in one]
    return document | {
        "steps": [
            *({**step, "with": {"attacks": []}} if step["use"] == "immunize" else step for step in before),
            {**mask, "with": few | mask["with"]},
        ],
        "evaluate": {
            "images": False,
            "sampling": {"images": 6, "kept_images": 1},
            "gates": {name: {"upper_at_most": 1} for name in asked},
        },
    }


def released(concepts: list[str], part: str, folder: Path, tried: dict[str, Any]) -> dict[str, Any]:
    """Return the report of a release, which is made if it is not there."""
    name = "-".join(concepts)
    report = folder / f"{name}-1.0.0.report" / "report.json"
    if not report.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.yaml"
        document = manifest(name, concepts, STEPS[part], tried)
        if part == "freeze-mask":
            document = mask_alone(document)
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")  # JSON is YAML
        command = [sys.executable, "-m", "publisher", "release", str(path), "--out", str(folder), "--throwaway-key"]
        done = subprocess.run([*command, "--quiet"], check=False, capture_output=True, text=True)
        if not report.is_file():
            sys.exit(f"{name}: no report\n{done.stdout}\n{done.stderr}")
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def row(concept: str, report: dict[str, Any], columns: dict[str, str]) -> str:
    """Return a line of the table: what the steps decided, the figures, and what refused the release."""
    checks = {check["id"]: check for claim in report["claims"] for check in claim["checks"]}
    chosen = [step["params"].get("targets") or step["params"].get("surrogates") for step in report["steps"]]
    towards = next(words[concept] for words in chosen if words)
    figures = [figure(checks.get(name.format(concept))) for name in columns.values()]
    wrong = [
        f"{name} {check['verdict']}" for name, check in checks.items() if check["verdict"] in ("failed", "unknown")
    ]
    return f"| {concept}, {towards} | {' | '.join(figures)} | {', '.join(wrong) or 'released'} |"


def figure(check: dict[str, Any] | None) -> str:
    """Return value, interval and n."""
    if check is None or not check["measurement"]:
        return "-"
    number = check["measurement"]["hardened"]
    return f"{number['value']:.3f} ({number['low']:.3f} to {number['high']:.3f}), n {number['n']}"


def main() -> None:
    """Release what is not there, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("concepts", nargs="*", help="default: those of the table in docs/explanation/defaults.md")
    parser.add_argument("--step", choices=tuple(STEPS), action="append", help="default: all")
    parser.add_argument("--with", type=json.loads, default={}, dest="tried", help="parameters of the last step, JSON")
    parser.add_argument("--out", type=Path, default=Path("out/defaults"))
    arguments = parser.parse_args()
    for step in arguments.step or STEPS:
        columns = COLUMNS[step]
        print(f"| concept, target | {' | '.join(columns)} | outcome |\n|---|{'---|' * (len(columns) + 1)}")
        for concepts in (together.split(",") for together in arguments.concepts or RELEASES[step]):
            report = released(concepts, step, arguments.out / step, arguments.tried)
            print("\n".join(row(concept, report, columns) for concept in concepts), flush=True)
        print()


if __name__ == "__main__":
    main()
