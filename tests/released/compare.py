"""Compare a release of the quickstart with the golden one: `make golden`, or `python tests/released/compare.py REPORT`.

REPORT is the folder of a release's reports. Weights and images are equal to the last bit on the golden's machine alone;
verdicts are to be equal everywhere, and values to lie in the golden's intervals.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).with_name("quickstart.json")


def summary(folder: Path) -> dict[str, Any]:
    """Return what the golden keeps of a release: verdicts, values, digests of steps and images, and what was asked."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    checks = {check["id"]: check for claim in report["claims"] for check in claim["checks"]}
    return {
        "decision": report["decision"],
        "steps": {step["id"]: step["output"] for step in report["steps"]},
        "checks": {name: _check(check, folder) for name, check in checks.items()},
    }


def _check(check: dict[str, Any], folder: Path) -> dict[str, Any]:
    measured = check["measurement"]["hardened"] if check["measurement"] else {}
    found = {"verdict": check["verdict"], **{key: measured.get(key) for key in ("value", "low", "high", "n")}}
    if check["evidence"] and not check["trials"] and not check.get("searches"):
        rows = [json.loads(line) for line in (folder / check["evidence"]).read_text(encoding="utf-8").splitlines()]
        found["images"] = _digest("".join(row["hardened_sha256"] for row in rows))
        found["asked"] = asked([(row["prompt"], row["seed"]) for row in rows])
    return found


def asked(requests: list[tuple[str, int]]) -> str:
    """Return the digest of the prompts and seeds of a check."""
    return _digest(json.dumps(requests))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def differences(found: dict[str, Any], golden: dict[str, Any]) -> Iterator[str]:
    """Yield what a release has otherwise than the golden, the worst first."""
    if found["checks"].keys() != golden["checks"].keys():
        yield f"other checks: {sorted(found['checks'].keys() ^ golden['checks'].keys())}"
    both = [(name, one, golden["checks"][name]) for name, one in found["checks"].items() if name in golden["checks"]]
    for name, one, old in both:
        if one["verdict"] != old["verdict"]:
            yield f"{name}: {one['verdict']}, was {old['verdict']}"
        elif one["value"] is not None and not old["low"] <= one["value"] <= old["high"]:
            yield f"{name}: {one['value']}, outside of {old['low']} to {old['high']}"
        if one.get("asked") != old.get("asked"):
            yield f"{name}: other prompts or seeds"


def main() -> int:
    """Print the differences; 1 if there are any."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found = summary(Path(sys.argv[1]))
    wrong = list(differences(found, golden))
    lines = wrong or ["verdicts, prompts and seeds are the golden's; values lie in its intervals"]
    same = found["checks"] == golden["checks"] and found["steps"] == golden["steps"]
    lines.append(
        "weights, values and images are equal to the last bit" if same else "last bits differ: another machine?"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
