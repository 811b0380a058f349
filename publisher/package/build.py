"""Building an unsigned package: lay out the model's files, then add what was found out about it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from publisher.api import ReleaseReport
from publisher.errors import ModelError, PluginError, PublisherError
from publisher.model.copying import Overwrite, copy_file
from publisher.model.files import json_bytes, write_atomic
from publisher.package import bom, card, pictures, sums
from publisher.package.content import check_configuration
from publisher.package.layout import (
    BASE_CARD,
    BOM,
    CARD,
    LICENSES,
    MAX_TEXT_BYTES,
    PICTURES,
    RELEASE,
    REPORT,
    REPORTS,
    RESOLVED,
    SUMMARY,
    SUMS,
    is_payload,
    path_problem,
    suffix,
    type_problem,
)
from publisher.package.own_card import OwnCard
from publisher.package.summary import checks, summarise
from publisher.package.tree import Tree, read_tree
from publisher.package.variants import write_fp16
from publisher.strict_json import JsonError, strict_configuration

RESERVED = (SUMMARY, RESOLVED, BOM, SUMS, BASE_CARD)


class PackageError(PublisherError):
    """A package cannot be built or signed."""


@dataclass(frozen=True)
class Additions:
    """What a publisher adds to what the release makes."""

    own_card: OwnCard | None = None
    """The publisher's own part of the card; None: there is none."""
    fp16: bool = False
    """Put the half-precision variant of the weights beside them."""


def lay_out(
    folder: Path,
    model_files: Mapping[str, Path],
    artifacts: Mapping[str, bytes],
    changed: Mapping[str, Overwrite] = MappingProxyType({}),
) -> Tree:
    """Copy a model into an empty folder. Content only: no links, no times, mode 0644, on disk when it returns.

    The model's own ``README.md`` is kept as ``release/base-model-card.md``; the package gets a card of its own. Each
    file is read and written once, and hashed meanwhile; see :mod:`publisher.model.copying`.

    Args:
        folder: empty, or not there yet.
        model_files: POSIX path inside the package -> file to copy.
        artifacts: path below ``release/`` -> content.
        changed: POSIX path of a file of the model -> the tensors that get other bytes.

    Returns:
        Digests and time stamps of all that was laid out.

    Raises:
        ModelError: a file of the model does not belong into a package.
        PluginError: an artifact does not.
        PackageError: the folder is not empty.
        PublisherError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise PackageError("is not empty", where=str(folder))
    require_packable(model_files)
    _refuse_artifacts(artifacts)
    digests = {}
    for path, source in sorted(model_files.items()):
        name = BASE_CARD if path == CARD else path
        digests[name] = copy_file(source, folder / name, changed.get(path))
    for name, data in sorted(artifacts.items()):
        write_atomic(folder / RELEASE / name, data)
        digests[f"{RELEASE}/{name}"] = hashlib.sha256(data).hexdigest()
    return _read(folder, digests)


def finish(
    folder: Path,
    *,
    report: ReleaseReport,
    views: Mapping[str, bytes],
    evidence: Mapping[str, bytes],
    resolved: bytes,
    laid: Tree | None = None,
    additions: Additions | None = None,
) -> dict[str, str]:
    """Add report, evidence, summary, bill of materials, card with its pictures, and at last the list of digests.

    Args:
        folder: as :func:`lay_out` left it.
        report: the record; written as ``release/reports/report.json``.
        views: file name -> other forms of the report; a ``report.json`` among them must hold the same record.
        evidence: file name -> JSON lines, as the report's checks name them.
        resolved: the manifest with defaults, without secrets.
        laid: what :func:`lay_out` left and was judged; files that nothing has touched since are not read again. None:
            what lies there now.
        additions: what the publisher adds to it; None: nothing.

    Returns:
        Path of each payload file -> sha256, as ``SHA256SUMS`` lists them.

    Raises:
        PackageError: the parts do not belong together, one does not belong into a package, or the folder holds
            something else than what was laid out and written.
        ModelError: a weight is too large for half precision.
        PublisherError: a file cannot be written.
    """
    record = json_bytes(report.as_json())
    if "report.json" in views and ReleaseReport.model_validate_json(views["report.json"]) != report:
        raise PackageError("the view report.json is not the report", where=REPORT)
    files = {REPORTS + name: data for name, data in {**evidence, **views}.items()}
    files |= {REPORT: views.get("report.json", record), RESOLVED: resolved}
    files |= {SUMMARY: json_bytes(summarise(report).as_json())}
    described = {path: hashlib.sha256(files[path]).hexdigest() for path in (REPORT, RESOLVED)}
    files |= {BOM: bom.render(report, described)}
    strip = pictures.strip(report)
    files |= {PICTURES: strip.png} if strip else {}
    own, fp16 = (additions.own_card, additions.fp16) if additions else (None, False)
    files |= own.images if own else {}
    files |= {
        CARD: card.render(
            report,
            base_card=(folder / BASE_CARD).is_file(),
            strip=strip,
            own=own,
            license_file=next((name for name in LICENSES if (folder / name).is_file()), ""),
            fp16=fp16,
        )
    }
    for path, data in sorted(files.items()):
        if problem := path_problem(path) or type_problem(path):
            raise PackageError(problem, where=path)
        write_atomic(folder / path, data)
    here = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    variants = write_fp16(folder, here) if fp16 else []
    digests = _digests(folder, laid)
    _refuse_other_evidence(report, digests)
    if laid is not None:
        written = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
        written |= {path: digests[path] for path in variants}
        refuse_exchanged(folder, {**laid.digests, **written}, digests)
    write_atomic(folder / SUMS, sums.render(digests))
    return digests


def refuse_exchanged(folder: Path, expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Make sure that a package holds what was judged and nothing else.

    Args:
        folder: the package.
        expected: path -> sha256.
        found: the same, of what lies there now.

    Raises:
        PackageError: it does not.
    """
    differing = sorted(path for path in {*expected, *found} if expected.get(path) != found.get(path))
    if differing:
        raise exchanged(folder, differing)


def exchanged(folder: Path, paths: Sequence[str]) -> PackageError:
    """Return the error that names what is not as it was judged."""
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return PackageError(
        f"something changed the package while it was being made: {', '.join(paths[:3])}{more}",
        where=str(folder),
        hint="It is not what was judged, so it was thrown away. Let nothing else write there, and run it again.",
    )


def require_packable(files: Mapping[str, Path]) -> None:
    """Refuse a model with a file that no package can hold: what a verifier refuses is said before any step runs.

    Args:
        files: POSIX path inside the package -> file to copy.

    Raises:
        ModelError: the first file of such a name, place or type, or a configuration that no verifier accepts.
    """
    seen: dict[str, str] = {}
    for path in files:
        problem = path_problem(path) or type_problem(path)
        other = seen.setdefault(path.casefold(), path)
        if not problem and other != path:
            problem = f"and {other} are one name to some file systems"
        if not problem and path.startswith(f"{RELEASE}/"):
            problem = "lies where the release's own files go"
        if not problem and suffix(path) == "json":
            problem = _configuration_problem(path, files[path])
        if problem:
            raise ModelError(
                problem,
                where=str(files[path]),
                hint="Leave the file out of the base model, rename it, or take that out of it.",
            )


def _configuration_problem(path: str, file: Path) -> str:
    """Return why a verifier would refuse a JSON file of a model, or an empty text."""
    if file.stat().st_size > MAX_TEXT_BYTES:
        return f"is larger than {MAX_TEXT_BYTES} bytes"
    try:
        document = strict_configuration(path, file.read_bytes())
    except JsonError as error:
        return str(error)
    return next((finding.message for finding in check_configuration(path, document)), "")


def _refuse_artifacts(artifacts: Mapping[str, bytes]) -> None:
    for name in artifacts:
        path = f"{RELEASE}/{name}"
        problem = path_problem(path) or type_problem(path)
        if not problem and (path in RESERVED or not is_payload(path) or path.startswith(REPORTS)):
            problem = "is a name that the package itself uses"
        if problem:
            raise PluginError(f"artifact {name!r} {problem}", hint="A step may add .json and .safetensors files.")


def _refuse_other_evidence(report: ReleaseReport, digests: Mapping[str, str]) -> None:
    ids = [check.id for check in checks(report)]
    if len(set(ids)) != len(ids):
        raise PackageError("two checks have one id", where=REPORT)
    for check in checks(report):
        if check.evidence and digests.get(REPORTS + check.evidence) != check.evidence_sha256:
            raise PackageError(f"the evidence of check {check.id} is not what the report says", where=check.evidence)


def _digests(folder: Path, laid: Tree | None = None) -> dict[str, str]:
    known = laid.untouched() if laid else {}
    return {path: digest for path, digest in _read(folder, known).digests.items() if is_payload(path)}


def _read(folder: Path, known: Mapping[str, str]) -> Tree:
    tree = read_tree(folder, known=known)
    if tree.findings:
        raise PackageError(str(tree.findings[0]), where=str(folder))
    return tree
