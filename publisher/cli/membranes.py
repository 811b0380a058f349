"""``publisher membranes``: look at membranes, merge and convert them, train them without a release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from publisher.cli import output
from publisher.errors import UsageError
from publisher.text import printable

if TYPE_CHECKING:
    from publisher.api.membranes import MembraneIndex
    from publisher.safeguards.membranes.inspecting import Description
    from publisher.safeguards.membranes.lora import Portion

DTYPES = ("float32", "float16", "bfloat16")
DEFAULT_WORK = Path("releases/.work")
STEP = "membrane-bundle"
"""The step that trains membranes, as a manifest names it."""
MUCH_LOST = 0.1

permeability_option = click.option(
    "--permeability",
    "permeabilities",
    type=float,
    multiple=True,
    metavar="G",
    help="How far a membrane is opened: once for all files, or once for each.  [default: 1]",
)
files_argument = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.group()
def membranes() -> None:
    """Look at membranes, merge and convert them, train them without a release.

    A FILE is a membrane file (of this program, of the authors of SPM, or a LoRA of a denoiser that diffusers saved), or
    a package that has membranes. Nothing here checks a signature: publisher verify does.

    \b
    Examples:
      publisher membranes inspect cigarette.safetensors --model embedded:emoji
      publisher membranes merge models/base cigarette.safetensors --out models/merged
      publisher membranes convert cigarette.safetensors --to diffusers --model models/base --out lora.safetensors
      publisher membranes train manifest.yaml --out membranes
    """


@membranes.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", metavar="MODEL", help="A folder or another reference: does it fit, how much does it change.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def inspect(file: Path, *, model: str | None, as_json: bool) -> None:
    """Show what a membrane file is, or those of a package: prompts, rank, size, where it changes a model, how much.

    \b
    Examples:
      publisher membranes inspect cigarette.safetensors
      publisher membranes inspect releases/emoji-clean-1.0.0 --model embedded:emoji --json
    """
    from publisher.registry.models import open_model
    from publisher.safeguards.membranes.inspecting import describe
    from publisher.safeguards.membranes.tools import open_index, open_membranes

    base = open_model(model) if model else None
    index = open_index(file) if file.is_dir() else None
    found = [describe(portion, base) for portion in open_membranes([file])]
    digest = base.digest if base else None
    data = {"index": index.as_json() if index else None, "model": digest, "files": [as_data(one) for one in found]}
    if as_json:
        output.document(data)
    else:
        output.result(as_text(found, index))


def as_data(found: Description) -> dict[str, Any]:
    """Return one file as JSON data."""
    membrane = found.portion.membrane
    return {
        "file": str(found.portion.path),
        "sha256": found.portion.sha256,
        "bytes": found.bytes,
        "prompts": list(membrane.prompts),
        "rank": membrane.rank,
        "alpha_over_rank": list(found.scales),
        "layers": found.layers,
        "parameters": membrane.parameters,
        "dtypes": list(found.dtypes),
        "change": dict(found.changes),
        "relative_change": dict(found.relative) if found.relative is not None else None,
        "fits": not found.misfits if found.misfits is not None else None,
        "misfits": list(found.misfits or ()),
        "trained_on_these_weights": found.same_base,
        "metadata": dict(membrane.metadata),
        "warnings": found.warnings,
    }


def as_text(found: list[Description], index: MembraneIndex | None) -> str:
    """Return files and index for a person, with control characters of foreign texts written out."""
    lines = []
    if index is not None:
        count = len(index.entries)
        lines.append(f"{count} membrane{'s' if count > 1 else ''}, {_mode(index)}")
        transport = ", ".join(f"{name} {value}" for name, value in index.transport.as_json().items())
        lines += [f"transport  {transport}", ""]
        for entry in index.entries:
            lines.append(
                f"{entry.concept}: {entry.file}, strength {entry.strength:g}, opens by {', '.join(entry.words)}"
            )
        lines.append("")
    for one in found:
        lines += [*_lines(one), ""]
    return "\n".join(map(printable, lines[:-1]))


def _mode(index: MembraneIndex) -> str:
    if index.mode == "merge":
        return "merged: they are in the weights already, with constant permeability"
    return "bundled: beside untouched weights, opened by the prompt in publisher.load"


def _lines(found: Description) -> list[str]:
    membrane = found.portion.membrane
    scales = " to ".join(f"{scale:g}" for scale in dict.fromkeys((found.scales[0], found.scales[-1])))
    size = f"{found.layers} layers, {membrane.parameters:,} parameters, {'/'.join(found.dtypes)}, {found.bytes:,} bytes"
    lines = [
        str(found.portion.path),
        f"  prompts     {' | '.join(membrane.prompts) or 'none'}",
        f"  rank        {membrane.rank}, alpha / rank {scales}",
        f"  size        {size}",
        f"  sha256      {found.portion.sha256}",
        f"  change      {_norms(found.changes, '{:.4g}')}  (norm, at permeability 1)",
    ]
    if found.relative is not None:
        lines += [f"              {_norms(found.relative, '{:.3%}')}  (of the model's weights)"]
    if found.misfits is not None:
        bases = {
            None: "the file does not say on what it was trained",
            True: "trained on these very weights",
            False: "trained on other weights",
        }
        lines.append(f"  model       {'fits' if not found.misfits else 'does not fit'}; {bases[found.same_base]}")
        lines += [f"              {problem}" for problem in found.misfits[:3]]
    lines += [f"  metadata    {key}: {value}" for key, value in membrane.metadata.items()]
    return lines + [f"  warning     {text}" for text in found.warnings]


def _norms(values: Any, form: str) -> str:
    return ", ".join(f"{kind} {form.format(value)}" for kind, value in values.items())


@membranes.command()
@click.argument("model")
@files_argument
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the merged model; a new one.")
@permeability_option
@click.option("--quiet", is_flag=True, help="No progress.")
def merge(model: str, files: tuple[Path, ...], *, out: Path, permeabilities: tuple[float, ...], quiet: bool) -> None:
    """Add membranes to the weights of a diffusers folder: exact sums, stored dtype kept, everything else copied.

    MODEL is a folder or another reference of a manifest, and is only read. Permeability is constant in the merged
    model: it acts on every prompt, and a user who has the original weights is free of it. The result is not a release:
    nothing about it was verified.

    \b
    Examples:
      publisher membranes merge models/base cigarette.safetensors --out models/merged
      publisher membranes merge models/base a.safetensors b.safetensors --permeability 1 --permeability 0.5 --out both
    """
    from publisher.cli.console import Terminal
    from publisher.registry.models import open_model
    from publisher.safeguards.membranes.tools import merge as merge_into
    from publisher.safeguards.membranes.tools import open_membranes

    portions = open_membranes(files, permeabilities)
    base = open_model(model)
    with Terminal(quiet=quiet) as terminal:
        done = merge_into(base, portions, out, lambda count, total: terminal.update("merge", count, total))
        terminal.warn("permeability is now constant: the membranes act on every prompt, whatever it says")
        if done.lost > MUCH_LOST:
            terminal.warn(f"rounding to the stored dtype changed the membranes by {done.lost:.0%}; merge into float32")
        for name in done.left_out:
            terminal.say(f"left out: {printable(name)}")
    lines = [f"{out}: {done.tensors} weights changed by {done.change:.3%} of their norm", *map(_portion, portions)]
    output.result("\n".join(map(printable, lines)))


def _portion(portion: Portion) -> str:
    return f"  {portion.path}: {' | '.join(portion.membrane.prompts) or 'no prompts'}, permeability {portion.gamma:g}"


@membranes.command()
@files_argument
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option(
    "--to", "form", type=click.Choice(["kohya", "diffusers"]), default="kohya", show_default=True, help="Names of keys."
)
@click.option(
    "--model", metavar="MODEL", help="Folder or reference; diffusers' names need it. What does not fit is refused."
)
@permeability_option
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Of the tensors.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def convert(
    files: tuple[Path, ...],
    *,
    out: Path,
    form: Any,
    model: str | None,
    permeabilities: tuple[float, ...],
    dtype: str,
    force: bool,
) -> None:
    """Write one or several membranes as one ordinary LoRA of fixed strength: for plain diffusers and other programs.

    Its change of every weight is the exact sum; alpha is its rank, so that every loader reads the same strength.
    Equal input gives equal bytes. Prompts stay in the metadata.

    \b
    Examples:
      publisher membranes convert releases/emoji-clean-1.0.0 --out lora.safetensors
      publisher membranes convert cigarette.safetensors --to diffusers --model models/base --out lora.safetensors
      publisher membranes convert pytorch_lora_weights.safetensors --to kohya --out membrane.safetensors
    """
    import torch

    from publisher.registry.models import open_model
    from publisher.safeguards.membranes.tools import convert as write_lora
    from publisher.safeguards.membranes.tools import open_membranes

    if out.exists() and not force:
        raise UsageError("is there already", where=str(out), hint="Replace it with --force.")
    portions = open_membranes(files, permeabilities)
    together = write_lora(portions, out, form, getattr(torch, dtype), open_model(model) if model else None)
    lines = [f"{out}: rank {together.rank}, {len(together.branches)} layers, {form} names", *map(_portion, portions)]
    output.result("\n".join(map(printable, lines)))


@membranes.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the membranes; a new one.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=DEFAULT_WORK,
    show_default=True,
    help="Folder for finished steps. A release with the same one takes the trained step from it.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--quiet", is_flag=True, help="No progress.")
def train(manifest: Path, *, out: Path, work: Path, as_json: bool, quiet: bool) -> None:
    """Run a manifest's steps up to its last membrane-bundle, and keep the membranes. Nothing is verified or signed.

    Write the files into another manifest under from: to reuse them there, where they are verified on that model. A run
    that was stopped goes on with the same command.

    \b
    Examples:
      publisher membranes train manifests/quickstart.yaml --out membranes
      publisher membranes train manifest.yaml --out membranes --work releases/.work
    """
    from publisher.cli.console import Terminal
    from publisher.release.training import summary
    from publisher.release.training import train as train_membranes

    with Terminal(quiet=quiet) as terminal:
        done = train_membranes(manifest, STEP, out, work, terminal)
        terminal.warn("nothing was verified: whether these membranes do what they are for is not known yet")
    if as_json:
        steps = [summary(record) for record in done.records]
        output.document({"files": [str(path) for path in done.files], "steps": steps})
        return
    lines = [f"{path}" for path in done.files]
    for record in done.records:
        cached = ", taken from the cache" if record.id in done.cached else f", {done.seconds[record.id]:.0f} s"
        lines += ["", f"{record.id}{cached}; loss curves in training.json"]
        lines += [f"  {number.name}: {number.value:.4g} {number.unit}".rstrip() for number in record.numbers]
    output.result("\n".join(map(printable, lines)))
