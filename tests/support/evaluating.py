"""What the tests of the verifier share: findings by code, and publishers who sign what they should not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from publisher.package import build, dsse, keys, sign, sums
from publisher.package.verify import Verification
from support.packages import CREATED, judged_files

UNET = "unet/model.safetensors"
REPORT = "release/reports/report.json"
Make = Callable[[Callable[[dict[str, Any]], object]], Path]


def codes(found: Verification) -> set[str]:
    return {finding.code.value for finding in found.findings}


def places(found: Verification, code: str) -> set[str]:
    return {finding.path for finding in found.findings if finding.code.value == code}


def resign(folder: Path, private: Path, change: Callable[[dict[str, Any]], object] = lambda _statement: None) -> None:
    """Sign a changed folder anew, as its publisher could: every file as it is, the statement as ``change`` has it."""
    digests = {
        path.relative_to(folder).as_posix(): sign._sha256(path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != "model.sig"
    }
    key = keys.load_private(private)
    data = json.loads(sign._sign_model("tiny", digests, key))
    statement = dsse.statement(dsse.parse(json.dumps(data).encode()).payload)
    change(statement)
    (folder / "model.sig").write_bytes(sign.attest(statement, key))


def release_again(folder: Path, private: Path) -> None:
    """Make digests, attestations and signature anew over a changed folder: a publisher who changed its payload."""
    shutil.rmtree(folder / "release/attestations")
    (folder / "model.sig").unlink()
    report = json.loads((folder / REPORT).read_bytes())
    (folder / REPORT).write_text(json.dumps(report | {"files": judged_files(folder)}))
    (folder / "release/SHA256SUMS").write_bytes(sums.render(build._digests(folder)))
    sign.sign(folder, keys.load_private(private), created=CREATED)
