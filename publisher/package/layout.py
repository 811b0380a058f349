"""What may lie where in a package: one allow-list, used by who builds a package and by who checks one."""

from __future__ import annotations

import re
from typing import Final

from publisher.api import model_files

SIGNATURE: Final = "model.sig"
MODEL_INDEX: Final = "model_index.json"
CARD: Final = "README.md"
RELEASE: Final = model_files.RELEASE
SUMS: Final = "release/SHA256SUMS"
SUMMARY: Final = "release/release.json"
RESOLVED: Final = "release/manifest.resolved.json"
BOM: Final = "release/bom.cdx.json"
BASE_CARD: Final = "release/base-model-card.md"
REPORTS: Final = "release/reports/"
REPORT: Final = "release/reports/report.json"
PICTURES: Final = "release/reports/pictures.png"
IMAGES: Final = "images/"
"""Pictures of the publisher's own part of the card."""
ATTESTATIONS: Final = "release/attestations/"
PROVENANCE: Final = "release/attestations/provenance.sigstore.json"
DECISION: Final = "release/attestations/svr.sigstore.json"
TESTS: Final = "release/attestations/test-result.sigstore.json"

MAX_FILES: Final = 10_000
MAX_DEPTH: Final = 8
MAX_PATH: Final = 400
MAX_FILE_BYTES: Final = 1 << 40
MAX_SIGNATURE_BYTES: Final = 8 * 1024 * 1024
MAX_TEXT_BYTES: Final = 64 * 1024 * 1024
TOTALS: Final = {
    "bytes": 1 << 40,
    "bytes of text": 512 * 1024 * 1024,
    "JSON keys and values": 20_000_000,
    "lines of JSON": 200_000,
    "bytes of headers": 32 * 1024 * 1024,
    "tensors": 100_000,
}
"""What is counted over all files of a package -> the most that is examined."""
MAX_FINDINGS: Final = 200
"""Findings that are listed."""

LICENSES: Final = ("LICENSE", "LICENSE.md", "LICENSE.txt")
ROOT_FILES: Final = frozenset(
    {
        SIGNATURE,
        MODEL_INDEX,
        CARD,
        *LICENSES,
        "NOTICE",
        "NOTICE.md",
        "NOTICE.txt",
    }
)
MODEL_TYPES: Final = frozenset({"json", "txt", "model", "safetensors"})
RELEASE_TYPES: Final = frozenset({"json", "jsonl", "txt", "md", "html", "xml", "yaml", "safetensors"})
TEXT_TYPES: Final = frozenset({"json", "jsonl", "txt", "md", "html", "xml", "yaml"})
CODE_TYPES: Final = frozenset({"py", "pyc", "pyo", "so", "dll", "dylib", "sh", "exe", "js", "ipynb", "whl"})

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")
_VARIANT = re.compile(r"\.fp16(-\d{5}-of-\d{5})?\.safetensors$|\.safetensors\.index\.fp16\.json$")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def former_tests(check: str) -> str:
    """Return the path of the attestation of one check's outcome, of which a package had one a check until 0.1."""
    return f"{ATTESTATIONS}test-result.{check}.sigstore.json"


def is_payload(path: str) -> bool:
    """Return whether SHA256SUMS lists a file: all but itself and what refers to it."""
    return path not in (SUMS, SIGNATURE) and not path.startswith(ATTESTATIONS)


def is_judged(path: str) -> bool:
    """Return whether a file is what the release is about, and not what it says of it."""
    said = path in (CARD, SUMMARY, RESOLVED, BOM) or path.startswith((REPORTS, IMAGES))
    return is_payload(path) and not said and not is_variant(path)


def is_variant(path: str) -> bool:
    """Return whether a file is the half-precision variant of weights, or its index: it repeats what was judged."""
    return not path.startswith(f"{RELEASE}/") and bool(_VARIANT.search(path))


def is_picture(path: str) -> bool:
    """Return whether a file is a picture of the card."""
    return path == PICTURES or (path.startswith(IMAGES) and path.count("/") == 1 and path.endswith(".png"))


def suffix(path: str) -> str:
    """Return the last part of the name after a dot, in lower case; empty if there is none."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name else ""


def path_problem(path: str) -> str | None:
    """Return why ``path`` (POSIX, relative) cannot be a path of a package, or None.

    ASCII letters, digits and ``._+-`` only: nothing that a terminal, a shell, another file system or another Unicode
    normalisation could read differently.
    """
    if len(path) > MAX_PATH:
        return f"is longer than {MAX_PATH} characters"
    if path.count("/") >= MAX_DEPTH:
        return f"is deeper than {MAX_DEPTH} folders"
    for part in path.split("/"):
        if not _PART.fullmatch(part) or part.endswith(".") or _DEVICES.fullmatch(part):
            return "has a name that is not allowed (ASCII letters, digits and ._+- only, no leading or trailing dot)"
    return None


def type_problem(path: str) -> str | None:
    """Return why a file of this name and place does not belong into a package, or None."""
    if "/" not in path:
        return None if path in ROOT_FILES else "does not belong into the root of a package"
    if path == SUMS or is_picture(path):
        return None
    if path.startswith(ATTESTATIONS):
        return None if path.endswith(".sigstore.json") else "is no attestation"
    allowed = RELEASE_TYPES if path.startswith(f"{RELEASE}/") else MODEL_TYPES
    if suffix(path) not in allowed:
        return f"is of a type that is not allowed here (allowed: {', '.join(sorted(allowed))})"
    return None
