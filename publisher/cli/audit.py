"""``publisher audit``: did a fine-tuned model keep what the package's freeze mask names?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.cli import output
from publisher.cli.options import required_trust, with_trust
from publisher.errors import ExitCode
from publisher.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.api.freeze_mask import Rows
    from publisher.safeguards.freeze_mask.audit.records import (
        AdapterAudit,
        Audit,
        AuditedPackage,
        ComponentAudit,
        FrozenVerdict,
        TensorChange,
        WeightsAudit,
    )

EXITS = {
    "complies": ExitCode.OK,
    "does-not-comply": ExitCode.REFUSED,
    "undecided": ExitCode.UNDECIDED,
    "not-comparable": ExitCode.INCONCLUSIVE,
}
HEADS = {
    "complies": "Complies",
    "does-not-comply": "DOES NOT COMPLY",
    "undecided": "UNDECIDED",
    "not-comparable": "NOT COMPARABLE",
}
WORST = ("changed", "renamed", "missing", "cast", "equal")


@click.command()
@click.argument("finetuned", type=click.Path(path_type=Path))
@click.option(
    "--against",
    "package",
    type=click.Path(path_type=Path),
    required=True,
    help="The released package that it was trained from: a folder, or hf:ORG/NAME@ and a tag or commit.",
)
@with_trust
@click.option("--hub", is_flag=True, hidden=True, expose_value=False, help="Does nothing any more.")
@click.option("--max", "most", type=click.IntRange(0), default=20, show_default=True, help="Lines for one list.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def audit(
    finetuned: Path,
    *,
    package: Path,
    key: Path | None,
    identity: str | None,
    issuer: str | None,
    root: Path | None,
    most: int,
    as_json: bool,
) -> int:
    """Check whether a fine-tuned model kept what a package's freeze mask names.

    FINETUNED is a diffusers pipeline, the folder of its denoiser or of adapters, the output folder of a training, or
    one .safetensors file, also a one-file checkpoint of ComfyUI, A1111 or kohya. The package is verified first. Every
    frozen tensor is compared bit for bit and with casts of the published one to 16 and 8 bits; adapters are known by
    their names, other files by their bytes. Nothing in FINETUNED is unpickled or run; one tensor at a time is in
    memory.

    \b
    Examples:
      publisher audit my-model --against releases/emoji-clean-1.0.0 --key keys/publisher.pub
      publisher audit lora.safetensors --against package --key publisher.pub --json

    Exit codes: 0 complies; 1 does not, or the package does not verify; 2 no key, or something is not there; 3 could not
    decide, because files could not be examined or shards are not there; 4 not comparable, also packed numbers (GGUF,
    nf4), or the package has no mask.
    """
    from publisher.auditing import audit as audit_model

    found = audit_model(finetuned, package, required_trust(key, identity, issuer, root))
    if as_json:
        output.document(found.as_json(), sort_keys=True)
    else:
        output.result(as_text(found, finetuned, most))
    return EXITS[found.verdict]


def as_text(found: Audit, upload: Path, most: int) -> str:
    """Return the answer for a person, worst first, with control characters of foreign names written out."""
    lines = [f"{HEADS[found.verdict]}: {upload}", *_package(found.package)]
    for weights in found.weights:
        lines += ["", *_weights(weights, most)]
    for adapter in found.adapters:
        lines += ["", *_adapter(adapter, most)]
    if found.unexamined:
        lines += ["", "Not examined, so that there is no positive answer:"]
        lines += _first([f"  {one.path}: {one.reason}" for one in found.unexamined], most)
    if found.aside:
        lines += ["", "Left aside, as no pipeline loads it:"]
        lines += _first([f"  {one.path}: {one.reason}" for one in found.aside], most)
    other = [_component(one) for one in found.components if one.state != "same"]
    lines += ["", "Other parts, of which a mask does not speak:", *_first(other, most)] if other else []
    if found.verdict == "complies":
        lines += ["", "What this proves:", f"  {found.proves}"]
    lines += ["", "What an audit cannot say:", *(f"  {limit}" for limit in found.limits)]
    return "\n".join(map(printable, lines))


def _package(package: AuditedPackage) -> Iterator[str]:
    tensors, share = package.tensors, f"{package.parameters.value:.1%}"
    yield f"  against {package.name} {package.version}, signed with the key {package.key_sha256[:16]}"
    held = f"{tensors.frozen} of {tensors.total} tensors of {package.component}"
    yield f"  its mask freezes {held}, {share} of its numbers"


def _weights(weights: WeightsAudit, most: int) -> Iterator[str]:
    yield " + ".join(weights.files) or "Weights"
    if not weights.comparable:
        yield f"  not comparable: {weights.reason}"
        return
    yield f"  frozen: {_counts(weights)}"
    yield from _merged(weights)
    yield from _first([f"    {_violation(one)}" for one in sorted(weights.violations, key=_order)], most)
    free = weights.free
    yield f"  free: {free.changed} of {free.tensors} changed" + (f", {free.missing} missing" if free.missing else "")
    if any(len(set(kind.split(" as "))) > 1 for kind in weights.dtypes):
        yield "  stored: " + ", ".join(f"{count} {kind}" for kind, count in weights.dtypes.items())
    if weights.unexpected:
        yield f"  beside: {_many(len(weights.unexpected), 'tensor')} that the published network does not have"
        yield from _first([f"    {name}" for name in weights.unexpected], most)


def _counts(weights: WeightsAudit) -> str:
    words = {"equal": "equal bit for bit", "cast": "equal after a cast"}
    found = [(sum(one.status == status for one in weights.frozen), words.get(status, status)) for status in WORST]
    return ", ".join(f"{count} {word}" for count, word in found if count) or "none of them is in this file"


def _merged(weights: WeightsAudit) -> Iterator[str]:
    """Return one line where at least half of the changed matrices tell of a merged adapter."""
    measured = [one.change for one in weights.violations if one.change and one.change.rank is not None]
    ranks = sorted({one.rank or 0 for one in measured if one.low_rank})
    count = sum(one.low_rank for one in measured)
    if ranks and count * 2 >= len(measured):
        rank = " to ".join(str(one) for one in dict.fromkeys((ranks[0], ranks[-1])))
        yield f"    like a merged LoRA of rank {rank}: {count} of {len(measured)} changed matrices"


def _adapter(adapter: AdapterAudit, most: int) -> Iterator[str]:
    held = len(adapter.frozen_layers)
    yield f"{' + '.join(adapter.files)}: adapters on {_many(adapter.layers, 'layer')}, {held} of them frozen"
    yield from _first([f"  frozen layer {name}" for name in adapter.frozen_layers], most)
    if adapter.elsewhere:
        yield f"  {_many(adapter.elsewhere, 'tensor')} for a text encoder"


def _order(one: FrozenVerdict) -> tuple[int, float, str]:
    relative = one.change.relative if one.change and one.change.relative is not None else float("inf")
    return (WORST.index(one.status), -relative, one.name)


def _violation(one: FrozenVerdict) -> str:
    text = f"{one.status} {one.name}{_rows(one.rows)}"
    if one.found_as:
        text += f": the published bytes are in {one.found_as}"
    if one.reason:
        text += f": {one.reason}"
    return text + (f": {_change(one.change)}" if one.change and not one.found_as and not one.reason else "")


def _rows(rows: Rows) -> str:
    return f" rows {', '.join(f'{start}-{end - 1}' for start, end in rows)}" if rows else ""


def _change(change: TensorChange) -> str:
    by = "by all of it" if change.relative is None else f"by {change.relative:.3g} of its norm"
    cosine = "" if change.cosine is None else f", cosine {change.cosine:.4g}"
    if change.rank is None:
        return by + cosine
    if not change.rank:
        return f"{by}{cosine}, no direction above rounding"
    return f"{by}{cosine}, {f'like a merged LoRA of rank {change.rank}' if change.low_rank else 'not low-rank'}"


def _component(one: ComponentAudit) -> str:
    texts = {
        "cast": "equal after a cast",
        "renamed": "equal, under older names",
        "missing": "is not there",
        "added": "is not in the package",
        "unexamined": "its weights could not be examined",
    }
    if one.state != "changed":
        return f"  {one.name}: {texts[one.state]}"
    what = [_many(one.tensors_changed, "tensor")] if one.tensors_changed else []
    return f"  {one.name}: changed: {', '.join([*what, *one.files_changed])}"


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _first(lines: list[str], most: int) -> list[str]:
    indent = " " * (len(lines[0]) - len(lines[0].lstrip())) if lines else ""
    return lines[:most] + ([f"{indent}and {len(lines) - most} more"] if len(lines) > most else [])
