"""``publisher slices``: train by slices, see what a deletion leaves, audit a package, prove a picture."""

from __future__ import annotations

import json
from pathlib import Path

import click

from publisher.cli import output
from publisher.cli.options import passphrase, required_trust, with_trust
from publisher.errors import ExitCode, UsageError
from publisher.text import printable


@click.group()
def slices() -> None:
    """Train by slices, show what withdrawing data would leave, and audit a package.

    Nothing that was computed from a withdrawn slice is in the weights of a release with the step slices: see
    docs/how-to/withdraw-data.md.

    \b
    Examples:
      publisher slices train slices.yaml --out licensed --key keys/publisher.key
      publisher slices delete licensed --slice artist-b
      publisher slices audit releases/licensed-1.1.0 --base ./base --key publisher.pub
    """


@slices.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for ledger and stages.")
@click.option(
    "--private",
    type=click.Path(path_type=Path),
    help="Folder for secrets, receipts and checkpoints; it stays with you.  [default: OUT.private]",
)
@click.option("--key", metavar="KEY", required=True, help="What signs the ledger, as in a release.")
@click.option(
    "--passphrase-env", metavar="VARIABLE", help="Environment variable with the key's passphrase or the token's PIN."
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="What computes."
)
@click.option(
    "--again", multiple=True, metavar="STAGE", help="Train a finished stage again and compare; may be given many times."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--quiet", is_flag=True, help="No progress.")
def train(
    file: Path,
    *,
    out: Path,
    private: Path | None,
    key: str,
    passphrase_env: str | None,
    device: str,
    again: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Train adapters by slices, so that each body of data can be withdrawn, and sign the ledger.

    A run that was stopped goes on with the same command, to the same bytes. A stage is trained again only if something
    that it saw has changed. Of slices under 'withdrawn' no picture is read, and stages that saw them are removed. The
    private folder links the ledger to persons: keep it, and give nobody but a slice's holder its receipts.

    \b
    Examples:
      publisher slices train slices.yaml --out licensed --key keys/publisher.key
      publisher slices train slices.yaml --out licensed --key keys/publisher.key --again artist-a

    Exit codes: 0 trained; 2 edit the file or the command, also where a training diverged; 3 a training gave other bytes
    the second time, or the folder is in use; 130 and 143 interrupted.
    """
    from publisher.cli.console import Terminal
    from publisher.engine.device import choose, require, versions
    from publisher.model.state import State
    from publisher.package.signers import signer
    from publisher.registry.models import open_model
    from publisher.slicing.make import Workplace
    from publisher.slicing.make import train as train_slices
    from publisher.slicing.recipe import read_training
    from publisher.slicing.stages import stages_of

    found = read_training(file)
    signing = signer(key, passphrase(passphrase_env, "--passphrase-env"))
    private = private or out.with_name(f"{out.name}.private")
    model = State(open_model(found.training.model, file.parent), (), private)
    chosen = choose(device, "float32")
    require(chosen)
    place = Workplace(out, private, chosen.name, versions() | {"device": chosen.name})
    stages, steps = [*stages_of(found.training)], found.training.recipe.steps
    with Terminal(quiet=quiet) as terminal:
        terminal.say(
            f"{len(stages)} stages, {steps} steps each: {len(stages) * steps} at most, as finished ones are kept"
        )
        done = train_slices(found, model, place, signing, terminal.update, again=again)
    ledger = done.ledger
    data = {
        "ledger": str(out),
        "private": str(private),
        "slices": [one.id for one in ledger.slices],
        "stages": [one.id for one in ledger.stages],
        "trained": list(done.trained),
        "steps": {"most": len(stages) * steps, "trained": (len(done.trained) + len(done.repeated)) * steps},
        "withdrawn": [one.id for one in ledger.withdrawn],
        "removed": list(done.removed),
        "repeated": list(done.repeated),
    }
    if as_json:
        output.document(data)
        return
    there = len(ledger.stages) - len(done.trained)
    lines = [
        f"{out}: {len(ledger.slices)} slices, {len(ledger.stages)} stages{f', {there} of them kept' if there else ''}",
        f"{private}: secrets and receipts; keep it, and publish nothing of it",
    ]
    if done.repeated:
        lines.append(f"trained again, to equal bytes: {', '.join(done.repeated)}")
    if ledger.withdrawn:
        gone, removed = ", ".join(one.id for one in ledger.withdrawn), ", ".join(done.removed)
        lines.append(f"withdrawn: {gone}{f'; removed the stages {removed}' if removed else ''}")
    output.result("\n".join(map(printable, lines)))


@slices.command()
@click.argument("ledger", type=click.Path(path_type=Path))
@click.option("--slice", "names", multiple=True, metavar="ID", help="A slice that would go; may be given many times.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def delete(ledger: Path, *, names: tuple[str, ...], as_json: bool) -> None:
    """Show what would be left if slices were withdrawn. Nothing is written.

    LEDGER is the folder that the training left, or its ledger.json. The signature is not looked at.

    \b
    Examples:
      publisher slices delete licensed --slice artist-b
    """
    from publisher.slicing.audit import open_ledger

    found = open_ledger(ledger, None)
    left = found.compose(names)
    data = {
        "deleted": sorted(names),
        "order": left.order,
        "stages": [stage.id for stage in left.stages],
        "live": list(left.live),
        "lost": list(left.lost),
    }
    if as_json:
        output.document(data)
        return
    where = f" of order {left.order}" if left.order else ""
    lines = [f"stages that stay{where}: {', '.join(stage.id for stage in left.stages)}"]
    lines.append(f"slices that stay: {len(left.live)} of {len(found.slices)}: {', '.join(left.live)}")
    if left.lost:
        lines.append(f"lost with them:   {', '.join(left.lost)} (every stage that saw them saw a withdrawn slice too)")
        lines.append(f"to have them back, train again with {', '.join(sorted(names))} under 'withdrawn'")
    output.result("\n".join(map(printable, lines)))


@slices.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--base", required=True, metavar="MODEL", help="The base model: a folder or another reference.")
@with_trust
@click.option(
    "--ledger-key",
    type=click.Path(path_type=Path),
    help="Public key of who trained the stages, where it is not the package's own.",
)
@click.option(
    "--earlier",
    type=click.Path(path_type=Path),
    help="The release before this one, or its ledger: this one has to follow from it, and what went stays away.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def audit(
    package: Path,
    *,
    base: str,
    key: Path | None,
    identity: str | None,
    issuer: str | None,
    root: Path | None,
    ledger_key: Path | None,
    earlier: Path | None,
    as_json: bool,
) -> ExitCode:
    """Compose a package's weights again from base model and stages, and compare every bit of the model.

    Nothing is trained and nobody is believed but the key: signatures, which stage saw what, digests, weights. What it
    cannot see is whether the trainer used the files that his ledger names.

    \b
    Examples:
      publisher slices audit releases/licensed-1.1.0 --base ./base --key publisher.pub
      publisher slices audit out/r/emoji-licensed-1.1.0 --base embedded:emoji-reference --key keys/publisher.pub

    Exit codes: 0 all is as the ledger says; 1 something is not; 2 no key, or something cannot be read.
    """
    from publisher.model.state import State
    from publisher.package.keys import load_public
    from publisher.registry.models import open_model
    from publisher.slicing.audit import audit as hold

    trust = required_trust(key, identity, issuer, root)
    model = State(open_model(base), (), package)
    anchor = load_public(trust) if isinstance(trust, Path) else trust
    found = hold(package, model, anchor, load_public(ledger_key) if ledger_key else anchor, earlier)
    if as_json:
        rows = [{"question": one.question, "ok": one.ok, "detail": one.detail} for one in found.answers]
        output.document({"ok": found.ok, "deleted": list(found.deleted), "stages": list(found.stages), "found": rows})
    else:
        lines = [f"{'yes' if one.ok else 'NO '}  {one.question}: {one.detail}" for one in found.answers]
        gone = f"no update computed from {', '.join(found.deleted)} is in" if found.deleted else "nothing else is in"
        lines += ["", f"{gone} the weights" if found.ok else "The package is not what its ledger says."]
        if found.ok and earlier is None:
            lines.append("Whether something is back that an earlier release had withdrawn is asked with --earlier.")
        output.result("\n".join(map(printable, lines)))
    return ExitCode.OK if found.ok else ExitCode.REFUSED


@slices.command()
@click.argument("ledger", type=click.Path(path_type=Path))
@click.option("--receipt", type=click.Path(path_type=Path), required=True, help="The picture's receipt: a JSON file.")
@click.option("--image", type=click.Path(path_type=Path), required=True, help="File of the picture.")
@click.option("--caption", required=True, help="Its caption, as it was given to the publisher.")
@with_trust
def prove(
    ledger: Path,
    *,
    receipt: Path,
    image: Path,
    caption: str,
    key: Path | None,
    identity: str | None,
    issuer: str | None,
    root: Path | None,
) -> ExitCode:
    """Show to a rights holder whether a picture was in a slice.

    The receipt comes from the publisher, the ledger may be that of any package. Without the receipt nobody can find
    out what is in a slice.

    \b
    Examples:
      publisher slices prove licensed --receipt mine.json --image cat.png --caption "a cat" --key publisher.pub

    Exit codes: 0 it was; 1 it was not, or the ledger's signature is not good; 2 something cannot be read.
    """
    from pydantic import ValidationError

    from publisher.api.slices import Receipt
    from publisher.package.dsse import BundleError
    from publisher.package.keys import load_public
    from publisher.slicing.audit import open_ledger, proves

    trust = required_trust(key, identity, issuer, root)
    try:
        mine = Receipt.parse(json.loads(receipt.read_bytes()))
        found = open_ledger(ledger, load_public(trust) if isinstance(trust, Path) else trust)
        shown = proves(found, mine, image.read_bytes(), caption)
    except BundleError as error:
        output.result(f"NO: the ledger {error}")
        return ExitCode.REFUSED
    except (ValidationError, ValueError) as error:
        raise UsageError(f"is no receipt: {error}", where=str(receipt)) from error
    answer, was = ("yes", "was") if shown else ("NO", "was not")
    gone = ", which was withdrawn" if mine.slice in {one.id for one in found.withdrawn} else ""
    output.result(f"{answer}: this picture with this caption {was} in {mine.slice}{gone}")
    return ExitCode.OK if shown else ExitCode.REFUSED
