"""What the steps reach by their defaults, on concepts of the embedded model that no default was chosen on.

    python benchmarks/defaults.py [--step immunize] [--out out/defaults] [CONCEPT[,CONCEPT...] ...]

The manifests name nothing but concepts with their synonyms. ``erase``, ``immunize`` and ``freeze-mask`` are released
one after the other for each concept, ``membrane-bundle`` alone for several at once (a comma joins them): each has its
own membrane. A release that a gate refuses is measured all the same. Prints both tables, with 95% intervals. What was
released already is read from ``--out``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RELEASES = {
    "immunize": ("syringe", "pill", "wine", "clown", "rocket", "dog", "tulip", "crown", "fluent"),
    "membrane": ("syringe", "pill,wine,clown,rocket", "dog,tulip,crown,heart", "fluent,firefox"),
}
STEPS = {"immunize": ("erase", "immunize", "freeze-mask"), "membrane": ("membrane-bundle",)}
COLUMNS = {
    "immunize": {
        "erased": "erase.{}.plain",
        "re-learning, times the steps": "immunize.{}.lora",
        "selectivity of the mask": "freeze-mask.selective",
        "gain left, of a random mask's": "freeze-mask.random",
        "innocent's gain kept": "freeze-mask.innocents",
        "kept, change": "kept",
    },
    "membrane": {
        "plain": "membrane-bundle.{}.plain",
        "synonyms": "membrane-bundle.{}.paraphrase",
        "weights alone": "membrane-bundle.{}.without",
        "kept, change": "membrane-bundle.kept",
        "kept, rms": "membrane-bundle.kept-distance",
    },
}


def manifest(name: str, concepts: list[str], steps: tuple[str, ...]) -> dict[str, Any]:
    """Return a release by defaults."""
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
        "steps": [{"use": step} for step in steps],
    }


def released(concepts: list[str], steps: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Return the report of a release, which is made if it is not there."""
    name = "-".join(concepts)
    report = folder / f"{name}-1.0.0.report" / "report.json"
    if not report.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps(manifest(name, concepts, steps), indent=1), encoding="utf-8")  # JSON is YAML
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
    parser.add_argument("--step", choices=tuple(STEPS), action="append", help="default: both")
    parser.add_argument("--out", type=Path, default=Path("out/defaults"))
    arguments = parser.parse_args()
    for step in arguments.step or STEPS:
        columns = COLUMNS[step]
        print(f"| concept, target | {' | '.join(columns)} | outcome |\n|---|{'---|' * (len(columns) + 1)}")
        for concepts in (together.split(",") for together in arguments.concepts or RELEASES[step]):
            report = released(concepts, STEPS[step], arguments.out / step)
            print("\n".join(row(concept, report, columns) for concept in concepts), flush=True)
        print()


if __name__ == "__main__":
    main()
