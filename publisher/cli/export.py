"""``publisher export``: a package as one checkpoint file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from publisher.cli import output
from publisher.cli.options import required_trust, with_trust
from publisher.text import printable

if TYPE_CHECKING:
    from publisher.exporting import Exported

DTYPES = ("float32", "float16", "bfloat16")


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "form",
    type=click.Choice(["single-file"]),
    required=True,
    help="The form: one .safetensors file in the names of the original code.",
)
@with_trust
@click.option("--dtype", type=click.Choice(DTYPES), help="Of all tensors.  [default: as they are stored]")
@click.option(
    "--membranes",
    type=click.Choice(["merge", "leave"]),
    help="What becomes of membranes that open by the prompt: always on in the weights, or left out.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--quiet", is_flag=True, help="No progress.")
def export(
    package: Path,
    out: Path,
    *,
    form: str,  # noqa: ARG001 - there is one
    key: Path | None,
    identity: str | None,
    issuer: str | None,
    root: Path | None,
    dtype: str | None,
    membranes: Literal["merge", "leave"] | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a package as one checkpoint file, for ComfyUI, A1111 and Forge.

    Of Stable Diffusion 1.x, 2.x and XL it is the whole model; of 3, FLUX.1 and Chroma the transformer alone.
    PACKAGE is a folder, or hf:ORG/NAME@ and a tag or commit; it is verified first. OUT is a new .safetensors file.
    Signature, card, reports, scheduler and tokenizer stay behind; the file's metadata names the package and its
    digest. No single file can open membranes by the prompt: say what is to become of them. One tensor is in memory at
    a time, and equal packages give equal files.

    \b
    Examples:
      publisher export releases/emoji-clean-1.0.0 emoji-clean.safetensors --to single-file --key keys/publisher.pub
      publisher export PACKAGE model.safetensors --to single-file --key a.pub --dtype float16 --membranes merge

    Exit codes: 0 written; 1 the package does not verify; 2 no key, OUT is there already, membranes without a choice, or
    another kind of model; 3 could not write.
    """
    from publisher.cli.console import Terminal
    from publisher.exporting import export as write

    anchor = required_trust(key, identity, issuer, root)
    with Terminal(quiet=quiet or as_json) as terminal:
        done = write(
            package,
            out,
            anchor,
            dtype=dtype or "",
            membranes=membranes,
            progress=lambda count, total: terminal.update("export", count, total),
        )
    if as_json:
        output.document(as_data(done))
    else:
        output.result(as_text(done))


def as_data(done: Exported) -> dict[str, Any]:
    """Return what was written as JSON data."""
    return {
        "file": str(done.path),
        "tensors": done.tensors,
        "bytes": done.bytes,
        "dtypes": list(done.dtypes),
        "merged_weights": done.merged,
        "metadata": dict(done.metadata),
        "stays_behind": list(done.behind),
    }


def as_text(done: Exported) -> str:
    """Return what was written for a person, with control characters of foreign texts written out."""
    said = done.metadata
    lines = [
        f"{done.path}: {done.tensors} tensors, {'/'.join(done.dtypes)}, {done.bytes:,} bytes",
        f"  made of {said['publisher.name']} {said['publisher.version']}, sums {said['publisher.sums_sha256'][:16]}",
        *([f"  membranes added to {done.merged} weights"] if done.merged else []),
        "",
        "Stays behind:",
        *(f"  {one}" for one in done.behind),
    ]
    return "\n".join(map(printable, lines))
