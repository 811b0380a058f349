"""``model.sig`` of a foreign package: V001 to V012.

``model-signing`` alone accepts an empty model, paths that leave the folder, duplicate names, a signer's own
``ignore_paths``, other serialisations and a missing key hint; so its statement is read strictly here first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from publisher.codes import Code, Finding
from publisher.package import dsse, oms
from publisher.package.layout import CARD, MAX_FILES, MAX_SIGNATURE_BYTES, SIGNATURE, path_problem
from publisher.package.tree import Tree

EDITED = "Edited after signing: verify the release's tag, or take the card from there."
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RESOURCE = {"name", "algorithm", "digest"}
_CODES = {
    dsse.KeyHintError: Code.UNTRUSTED_KEY,
    dsse.SignatureError: Code.BAD_SIGNATURE,
    dsse.CertificateError: Code.CERTIFICATE,
    dsse.IdentityError: Code.IDENTITY,
}


def code_of(error: dsse.BundleError) -> Code:
    """Return the code of what is wrong with a bundle."""
    return _CODES.get(type(error), Code.MALFORMED_SIGNATURE)


def check_signature(tree: Tree, anchor: dsse.Anchor) -> tuple[dict[str, str], list[Finding]]:
    """Read what was signed; the files themselves are not looked at.

    Args:
        tree: the folder, for ``model.sig``.
        anchor: who may have signed.

    Returns:
        Path -> sha256 as signed, empty unless key, signature and statement are good; and what is wrong.
    """
    if SIGNATURE not in tree.files:
        return {}, [Finding(Code.NO_SIGNATURE, SIGNATURE, "is not there")]
    if tree.size(SIGNATURE) > MAX_SIGNATURE_BYTES:
        return {}, [Finding(Code.LIMIT, SIGNATURE, f"is larger than {MAX_SIGNATURE_BYTES} bytes")]
    tree.hash(SIGNATURE)
    data = tree.read(SIGNATURE, MAX_SIGNATURE_BYTES) if SIGNATURE in tree.digests else None
    if data is None:
        return {}, []
    if not data:
        return {}, [Finding(Code.NO_SIGNATURE, SIGNATURE, "is empty")]
    signed, finding = _signed(data, anchor)
    if finding is None:
        finding = _disagreement(data, signed, anchor)
    return ({}, [finding]) if finding else (signed, [])


def _disagreement(data: bytes, signed: Mapping[str, str], anchor: dsse.Anchor) -> Finding | None:
    """Ask the library, which must find the same files signed."""
    try:
        same = oms.verify(data, signed, anchor)
    except oms.OmsError as error:
        return Finding(Code.MALFORMED_SIGNATURE, SIGNATURE, f"model-signing refuses it: {error}")
    return None if same else Finding(Code.STATEMENT, SIGNATURE, "model-signing finds other files signed")


def _signed(data: bytes, anchor: dsse.Anchor) -> tuple[dict[str, str], Finding | None]:
    try:
        statement = dsse.open_statement(data, anchor)
    except dsse.BundleError as error:
        return {}, Finding(code_of(error), SIGNATURE, str(error))
    problem = _statement_problem(statement)
    if problem:
        return {}, Finding(Code.STATEMENT, SIGNATURE, problem)
    return {entry["name"]: entry["digest"] for entry in statement["predicate"]["resources"]}, None


def _statement_problem(statement: Mapping[str, Any]) -> str | None:
    subject, predicate = statement.get("subject"), statement["predicate"]
    if statement.get("predicateType") != oms.PREDICATE_TYPE:
        return "is not a model signature v1.0"
    if not isinstance(subject, list) or len(subject) != 1:
        return "must have one subject"
    if predicate.get("serialization") != oms.SERIALIZATION:
        return "must list every file but model.sig by its sha256, without links"
    return _resources_problem(predicate.get("resources"))


def _resources_problem(resources: Any) -> str | None:
    if not isinstance(resources, list) or not 0 < len(resources) <= MAX_FILES:
        return f"must list 1 to {MAX_FILES} files"
    problem = next(filter(None, map(_resource_problem, resources)), None)
    if problem is None and len({entry["name"] for entry in resources}) != len(resources):
        return "lists a file twice"
    return problem


def _resource_problem(entry: Any) -> str | None:
    if not isinstance(entry, dict) or set(entry) != _RESOURCE or not all(isinstance(v, str) for v in entry.values()):
        return "lists something that is no file with name, algorithm and digest"
    if entry["algorithm"] != "sha256" or not _DIGEST.fullmatch(entry["digest"]):
        return "uses another digest than sha256"
    if entry["name"] == SIGNATURE or path_problem(entry["name"]):
        return f"lists {entry['name']!r}, which cannot be a path of a package"
    return None


def differences(signed: Mapping[str, str], found: Mapping[str, str]) -> list[Finding]:
    """Return files that changed, are missing, or were added."""
    changed = [
        Finding(Code.CHANGED, path, "is not what was signed", EDITED if path == CARD else "")
        for path in sorted(signed.keys() & found.keys())
        if signed[path] != found[path]
    ]
    missing = [Finding(Code.MISSING, path, "was signed and is not there") for path in sorted(signed.keys() - found)]
    extra = [Finding(Code.EXTRA, path, "was not signed") for path in sorted(found.keys() - signed)]
    return [*changed, *missing, *extra]
