"""A membrane of the embedded model, put on a fine-tuned variant of it: `python benchmarks/membrane_transfer.py`.

The variant learned to generate everything in one style (`python -m publisher_emoji.training.fine_tune`). Trains the
membrane on the embedded model, makes a release of each model that reuses the file with `from:`, and prints what the
same checks measured on both: with the membrane, with the weights alone, and what it did to the kept concepts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from membrane_tradeoff import MEMBRANE, TITLES, figure, manifest, measured


def run(*arguments: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run([sys.executable, "-m", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}")


def trained(folder: Path, arguments: argparse.Namespace) -> Path:
    """Return the membrane's file, trained on the embedded model."""
    step = {"use": "membrane-bundle", "with": {**MEMBRANE, "surrogates": {arguments.concept: arguments.surrogate}}}
    path = folder / "train.yaml"
    path.write_text(json.dumps(manifest("train", [step], arguments)), encoding="utf-8")
    run("publisher", "membranes", "train", str(path), "--out", str(folder / "membranes"))
    return folder / "membranes" / f"{arguments.concept}.safetensors"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concept", default="skull")
    parser.add_argument("--surrogate", default="ghost")
    parser.add_argument("--style", default="firefox")
    parser.add_argument("--images", type=int, default=72)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run("publisher_emoji.training.fine_tune", "--style", arguments.style, "--out", str(folder / "variant"))
        file = trained(folder, arguments)
        reused = {
            "from": {arguments.concept: str(file.relative_to(folder))},
            "train_on": "prompts",
            "transport": MEMBRANE["transport"],
        }
        steps: list[dict[str, Any]] = [{"use": "membrane-bundle", "with": reused}]
        found = {}
        for name, model in (("embedded", "embedded:emoji"), ("fine-tuned", "./variant")):
            found[name] = measured(name, steps, folder, arguments, model=model)
    print(f"| | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for check, title in TITLES.items():
        print(f"| {title} | {' | '.join(figure(of[check]) for of in found.values())} |")


if __name__ == "__main__":
    main()
