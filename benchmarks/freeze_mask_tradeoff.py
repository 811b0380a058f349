"""What freeze masks leave of a fine-tuning's gain on the embedded model: sizes, weights, recipes and units.

    python benchmarks/freeze_mask_tradeoff.py --out out/frozen

Releases ``manifests/freeze-mask.yaml`` with other parameters. The first way is tested with every
mask to compare with, up to 80 steps; the others up to 40. Weights, images and trainings without a
mask are shared. The same command goes on where it was stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import yaml
from click.testing import CliRunner

from publisher.cli import main as publisher

MANIFEST = Path(__file__).parent.parent / "manifests" / "freeze-mask.yaml"
BRIEF: dict[str, Any] = {"replicas": 0, "swap": False}
WAYS: dict[str, dict[str, Any]] = {
    "30%, lam 1": {"lam": 1},
    "30%, lam 0.5": {**BRIEF, "lam": 0.5},
    "70%, lam 1": {**BRIEF, "lam": 1, "ratio": 0.7},
    "30%, lam 0.25": {**BRIEF, "lam": 0.25},
    "30%, lam 1, erased only": {**BRIEF, "lam": 1},
    "70%, lam 0.5": {**BRIEF, "lam": 0.5, "ratio": 0.7},
    "30%, lam 1, rows": {**BRIEF, "lam": 1, "granularity": "row"},
    "30% of the tensors, as released": {**BRIEF, "recipe": "released", "count": "tensors"},
    "30%, lam 1, refined": {**BRIEF, "lam": 1, "recipe": "refined"},
    "10%, lam 1": {**BRIEF, "lam": 1, "ratio": 0.1},
    "50%, lam 1": {**BRIEF, "lam": 1, "ratio": 0.5},
}


def manifest(name: str, way: str) -> dict[str, Any]:
    """Return the manifest of one way."""
    found: dict[str, Any] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    found["release"]["name"] = name
    erase, immunize, mask = found["steps"]
    mask["with"] |= WAYS[way]
    if "swap" in WAYS[way]:
        mask["with"]["check"] |= {"compare": False, "evaluation_steps": [0, 20, 40]}
    found["steps"] = [erase, mask] if way.endswith("erased only") else [erase, immunize, mask]
    return found


def release(name: str, way: str, out: Path) -> dict[str, Any]:
    """Return the report of one way, released or refused."""
    path = out / f"{name}.yaml"
    path.write_text(yaml.safe_dump(manifest(name, way), sort_keys=False), encoding="utf-8")
    words = ["release", str(path), "--out", str(out), "--throwaway-key", "--json", "--quiet"]
    result = CliRunner().invoke(publisher, words)
    report = out / f"{name}-1.0.0.report" / "report.json"
    if not report.is_file():
        raise click.ClickException(result.stderr)
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def gain(trials: list[dict[str, Any]], concepts: list[str], model: str, steps: int) -> float:
    """Return the mean share of the unmasked gain that ``model`` has after ``steps``; NaN: it was not tried."""

    def one(concept: str, model: str, seed: int) -> float:
        for trial in trials:
            if (trial["concept"], trial["model"], trial["seed"]) == (concept, model, seed):
                return float(trial["losses"][0] - trial["losses"][trial["evaluation_steps"].index(steps)])
        return float("nan")

    seeds = sorted({trial["seed"] for trial in trials})
    shares = [one(concept, model, seed) / one(concept, "unmasked", seed) for concept in concepts for seed in seeds]
    return sum(shares) / len(shares)


def rows(report: dict[str, Any], way: str) -> list[list[str]]:
    """Return lines of the table: one for each mask and number of steps that was tried."""
    checks = {check["id"].rpartition(".")[2]: check for claim in report["claims"] for check in claim["checks"]}
    chosen = checks["selective"]
    innocents = chosen["metric_params"]["innocents"]
    illegal = [name for name in chosen["concepts"] if name not in innocents]
    trials = chosen["trials"]
    masks = {"learned": "hardened", "seed 1": "seed-1", "random": "random-mask"}
    found = []
    for steps in [steps for steps in trials[0]["evaluation_steps"] if steps >= 20]:
        for mask, model in masks.items():
            if any(trial["model"] == model for trial in trials):
                shares = [gain(trials, names, model, steps) for names in (illegal, innocents)]
                found.append([way, mask, str(steps), *(f"{share:.2f}" for share in shares)])
    found.append([way, "selectivity", "", interval(chosen), ""])
    found.append([way, "of a random mask's", "", interval(checks["random"]), ""])
    return found


def interval(check: dict[str, Any]) -> str:
    """Return a check's number with its interval, or why there is none."""
    if check["measurement"] is None:
        return str(check["reason"])
    found = check["measurement"]["hardened"]
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/frozen"), show_default=True)
def main(out: Path) -> None:
    """Release in every way, print a table of shares, and what each step recorded."""
    out.mkdir(parents=True, exist_ok=True)
    click.echo("way | mask | steps | illegal | innocent")
    for number, way in enumerate(WAYS):
        report = release(f"way-{number}", way, out)
        for row in rows(report, way):
            click.echo(" | ".join(row))
        step = report["steps"][-1]
        click.echo("  " + ", ".join(f"{one['name']} {one['value']:.3f}" for one in step["numbers"]))


if __name__ == "__main__":
    main()
