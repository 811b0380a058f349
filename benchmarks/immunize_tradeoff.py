"""What an immunisation brings and costs on the embedded model: four ways to train it, the audit's LoRA attack each.

    python benchmarks/immunize_tradeoff.py --out out/tradeoff

Releases ``manifests/audit.yaml`` with other parameters and only the LoRA checks; trials of the erased model are shared.
Each way takes minutes on two cores; the same command goes on where it was stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml
from new_words import cell, release

MANIFEST = Path(__file__).parent.parent / "manifests" / "audit.yaml"
WAYS: dict[str, dict[str, Any]] = {
    "as audited (imma, 3 attackers)": {},
    "merged copies (mima)": {"method": "mima"},
    "attacker: lora alone": {"inner": ["lora"], "inner_lr": 1.0e-3},
    "60 steps": {"steps": 60, "lr": 3.0e-3},
}


def manifest(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of one way."""
    read: dict[str, Any] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    immunize = read["steps"][1]["with"]
    immunize |= {"attacks": ["lora"], "innocents": 1, **changes}
    immunize["check"]["controls"] = ["before"]
    read["evaluate"]["checks"] = []
    return read


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/tradeoff"), show_default=True)
def main(out: Path) -> None:
    """Train in four ways, attack each, print a table."""
    names = {
        "cigarette": "immunize.cigarette.lora",
        "pistol": "immunize.pistol.lora",
        "innocent": "immunize.bomb.learned",
        "kept": "kept",
        "unconditional": "erase.unconditional",
    }
    click.echo(" | ".join(["way", *names, "training s"]))
    for number, (way, changes) in enumerate(WAYS.items()):
        told = release(f"way-{number}", manifest(changes), out)
        checks = {check["id"]: check for claim in told["claims"] for check in claim["checks"]}
        cells = [cell(checks[check]) for check in names.values()]
        click.echo(" | ".join([way, *cells, f"{told['seconds']['immunize']:.0f}"]))


if __name__ == "__main__":
    main()
