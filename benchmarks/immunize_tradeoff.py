"""What an immunisation brings and costs on the embedded model: four ways to train it, the audit's LoRA attack each.

    python benchmarks/immunize_tradeoff.py --out out/tradeoff

Releases ``manifests/audit.yaml`` with other parameters and only the LoRA checks; trials of the erased model are shared.
Each way takes minutes on two cores; the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import yaml
from click.testing import CliRunner

from publisher.cli import main as publisher

MANIFEST = Path(__file__).parent.parent / "manifests" / "audit.yaml"
WAYS: dict[str, dict[str, Any]] = {
    "as audited (imma, 3 attackers)": {},
    "merged copies (mima)": {"method": "mima"},
    "attacker: lora alone": {"inner": ["lora"], "inner_lr": 1.0e-3},
    "60 steps": {"steps": 60, "lr": 3.0e-3},
}


def release(name: str, changes: dict[str, Any], out: Path) -> dict[str, Any]:
    """Return the JSON document that ``publisher release`` prints for one way."""
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    manifest["release"]["name"] = name
    erase, immunize = manifest["steps"]
    immunize["with"] |= {"attacks": ["lora"], "innocents": 1, **changes}
    immunize["with"]["check"]["controls"] = ["before"]
    manifest["evaluate"]["checks"] = []
    path = out / f"{name}.yaml"
    path.write_text(yaml.safe_dump(manifest | {"steps": [erase, immunize]}, sort_keys=False), encoding="utf-8")
    words = ["release", str(path), "--out", str(out), "--throwaway-key", "--json", "--quiet"]
    result = CliRunner().invoke(publisher, words)
    if not result.stdout.startswith("{"):
        raise click.ClickException(result.stderr)
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def cell(checks: dict[str, dict[str, Any]], check: str) -> str:
    """Return a check's number with its interval."""
    found = checks[check]
    measured = found["measured"]
    if measured is None:
        return str(found["reason"])
    high = "..." if measured["high"] >= 1e6 else f"{measured['high']:.2f}"
    return f"{measured['value']:.2f} ({measured['low']:.2f} to {high})"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/tradeoff"), show_default=True)
def main(out: Path) -> None:
    """Train in four ways, attack each, print a table."""
    out.mkdir(parents=True, exist_ok=True)
    names = {
        "cigarette": "immunize.cigarette.lora",
        "pistol": "immunize.pistol.lora",
        "innocent": "immunize.bomb.learned",
        "kept": "kept",
        "unconditional": "erase.unconditional",
    }
    click.echo(" | ".join(["way", *names, "training s"]))
    for number, (way, changes) in enumerate(WAYS.items()):
        told = release(f"way-{number}", changes, out)
        checks = {check["id"]: check for claim in told["claims"] for check in claim["checks"]}
        cells = [cell(checks, check) for check in names.values()]
        click.echo(" | ".join([way, *cells, f"{told['seconds']['immunize']:.0f}"]))


if __name__ == "__main__":
    main()
