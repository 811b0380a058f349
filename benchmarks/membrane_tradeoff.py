"""One concept taken out by ``erase``, by a membrane, and by both, on the embedded model: what is gone, what it costs.

    python benchmarks/membrane_tradeoff.py [--concept skull] [--surrogate ghost] [--trainer pool] [--images 72]

Makes four releases with the command that everybody uses and the same checks, and prints their figures side by side,
with 95% intervals. A release that a gate refuses is measured all the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

MEMBRANE = {
    "train_on": "prompts",
    "steps": 200,
    "lr": 1e-3,
    "warmup": 20,
    "cycles": 1,
    "lam": 30,
    "transport": {"threshold": 0.9},
}
CHECKS = {
    "plain": ("plain", "concept-rate", "on"),
    "synonyms": ("paraphrase", "concept-rate", "on"),
    "without": ("plain", "concept-rate", "off"),
    "kept": ("plain", "kept-accuracy", "on"),
    "distance": ("plain", "kept-distance", "on"),
    "empty": ("empty-prompt", "image-distance", "on"),
}
TITLES = {
    "plain": "shown, plain prompts",
    "synonyms": "shown, synonyms",
    "without": "shown, weights alone",
    "kept": "kept accuracy, change",
    "distance": "kept images, distance (rms)",
    "empty": "empty prompt, distance (rms)",
}


def variants(concept: str, surrogate: str, trainer: str) -> dict[str, list[dict[str, Any]]]:
    """Name -> the steps of its manifest."""
    erase = {"use": "erase", "with": {"targets": {concept: surrogate}}}
    settings = {**MEMBRANE, "trainer": trainer, "surrogates": {concept: surrogate}}
    bundle = {"use": "membrane-bundle", "with": settings}
    merged = {key: value for key, value in settings.items() if key != "transport"}
    merge = {"use": "membrane-bundle", "with": {**merged, "mode": "merge"}}
    return {"erase": [erase], "membrane": [bundle], "membrane, merged": [merge], "both": [erase, bundle]}


def manifest(name: str, steps: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return a release of one variant, with the checks that all have in common."""
    one = [arguments.concept]
    kept = kept_ids(arguments.concept)
    checks = [
        {
            "id": check,
            "attack": attack,
            "metric": metric,
            "membranes": membranes,
            "concepts": kept if check in ("kept", "distance") else one,
            "gate": {"lower_at_least": -1},
        }
        for check, (attack, metric, membranes) in CHECKS.items()
    ]
    return {
        "manifest": 1,
        "release": {"name": name.replace(", ", "-"), "version": "1.0.0", "license": "CC-BY-4.0"},
        "model": "embedded:emoji",
        "seed": arguments.seed,
        "prompts": {
            "object": ["{a} {name} emoji", "{a} {name} emoji in {style} style"],
            "style": ["{a} {object} emoji in {name} style"],
        },
        "concepts": [{"id": arguments.concept, "synonyms": synonyms(arguments.concept)}],
        "keep": {"rest_of": "emoji"},
        "steps": steps,
        "evaluate": {
            "scorer": "emoji",
            "checks": checks,
            "images": False,
            "sampling": {"steps": 8, "guidance": 3.0, "images": arguments.images, "kept_images": 2},
        },
    }


def kept_ids(concept: str) -> list[str]:
    """Return ids of everything else that the scorer knows."""
    from publisher_emoji import vocabulary

    words = vocabulary()
    return [thing.slug for thing in words.objects if thing.name != concept] + list(words.style_names)


def synonyms(concept: str) -> list[str]:
    """Return the words that only the checks use."""
    from publisher_emoji import vocabulary

    return list(vocabulary().object(concept).synonyms)


def measured(
    name: str, steps: list[dict[str, Any]], folder: Path, arguments: argparse.Namespace, model: str = "embedded:emoji"
) -> dict[str, Any]:
    """Check -> its measurement in a release of this variant."""
    document = manifest(name, steps, arguments) | {"model": model}
    path = folder / f"{document['release']['name']}.yaml"
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-m", "publisher", "release", str(path), "--out", str(folder), "--throwaway-key"]
    done = subprocess.run([*command, "--work", str(folder / "work")], check=False, capture_output=True, text=True)
    report = folder / f"{document['release']['name']}-1.0.0.report" / "report.json"
    if not report.is_file():
        sys.exit(f"{name}: no report\n{done.stdout}\n{done.stderr}")
    checks = [check for claim in json.loads(report.read_text())["claims"] for check in claim["checks"]]
    return {check["id"]: check["measurement"] for check in checks if check["id"] in CHECKS}


def figure(found: dict[str, Any] | None) -> str:
    """Return value and interval."""
    if found is None:
        return "not measured"
    number = found["hardened"]
    return f"{number['value']:.3f} ({number['low']:.3f} to {number['high']:.3f})"


def main() -> None:
    """Print the table, and what the metrics add to it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concept", default="skull")
    parser.add_argument("--surrogate", default="ghost")
    parser.add_argument("--trainer", choices=("pool", "exact"), default="pool")
    parser.add_argument("--images", type=int, default=72)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = arguments.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        steps = variants(arguments.concept, arguments.surrogate, arguments.trainer)
        found = {name: measured(name, steps[name], folder, arguments) for name in steps}
    print(f"| | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for check, title in TITLES.items():
        n = next(iter(found.values()))[check]["hardened"]["n"]
        print(f"| {title}, n {n} | {' | '.join(figure(of[check]) for of in found.values())} |")
    for name, of in found.items():
        print(f"\n{name}: {json.dumps(of['distance']['details'], sort_keys=True)}")


if __name__ == "__main__":
    main()
