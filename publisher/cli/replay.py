"""``publisher replay``: make a package's checks again, as a party that did not publish it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from publisher.cli import output
from publisher.cli.options import passphrase
from publisher.errors import ExitCode, UsageError
from publisher.text import printable

if TYPE_CHECKING:
    from publisher.package.dsse import Signer
    from publisher.release.replayed import FreshCheck, Replay

SENTENCES = {
    "reproduced": "every image has the recorded digest",
    "agrees": "another kind of machine: the scorers see what the evidence says",
    "compatible": "new images keep every gate",
    "contradicts": "what was found contradicts the package",
    "undecided": "too little was found to say",
}


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), help="The publisher's public key: verify the package first.")
@click.option("--base", metavar="MODEL", help="The base model.  [default: the one that the package names]")
@click.option(
    "--sample", type=click.IntRange(1), default=50, show_default=True, help="Lines of evidence to generate again."
)
@click.option("--fresh", type=click.IntRange(1), help="Instead, so many new images for each concept and check.")
@click.option(
    "--finds",
    type=click.Path(path_type=Path),
    help="Instead, what the searches found: folder 'finds' of the work folder, or a package that publishes it.",
)
@click.option("--seed", type=click.IntRange(0), help="Of the choice of lines; with --fresh, first of the new seeds.")
@click.option("--work", type=click.Path(path_type=Path), help="Folder that keeps images.")
@click.option("--sign", "own", metavar="KEY", help="Key of yours, as for release --key: sign what you found.")
@click.option("--passphrase-env", metavar="VARIABLE", help="Environment variable with that key's passphrase.")
@click.option("--statement", type=click.Path(path_type=Path), help="File for the signed statement; never overwritten.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--quiet", is_flag=True, help="No progress.")
def replay(
    package: Path,
    *,
    key: Path | None,
    base: str | None,
    sample: int,
    fresh: int | None,
    finds: Path | None,
    seed: int | None,
    work: Path | None,
    own: str | None,
    passphrase_env: str | None,
    statement: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Make a package's checks again, with its own seeds or with yours.

    Without --fresh a random sample of the evidence is generated again, in the batches of the release. On the same kind
    of machine each image has the recorded digest; on another one the scorers' judgements are compared. With --fresh and
    a --seed that the publisher could not foresee, new images are judged and compared with the gates. Attacks that
    train, or that change weights, are left out and named. The package's own scorers and base model are used.
    With --finds prompts, vectors and pictures that brought a concept back are tried again, without searching: are they
    those that the package sealed, and do they do what it says?

    --sign writes a statement about the package with your key, which `verify --also` reads.

    \b
    Examples:
      publisher replay releases/emoji-clean-1.0.0 --key publisher.pub
      publisher replay releases/emoji-clean-1.0.0 --key publisher.pub --fresh 60 --seed 91100452
      publisher replay releases/emoji-clean-1.0.0 --key publisher.pub --finds releases/.work/finds
      publisher replay package --key publisher.pub --sign mine.key --statement found.sigstore.json

    Exit codes: 0 reproduced, agrees, or new images keep the gates; 1 not verified, or contradicts; 2 edit the command;
    3 could not decide; 4 too little was found.
    """
    from publisher.cli.console import Terminal
    from publisher.hub.fetch import locate
    from publisher.package.signers import signer
    from publisher.release import replay as replaying

    _require_possible(key, fresh, finds, seed, own, statement)
    folder = locate(package).path
    signing = signer(own, passphrase(passphrase_env, "--passphrase-env")) if own is not None else None
    if key is not None:
        from publisher.cli.verify import as_text as answer
        from publisher.package.verify import verify as verify_package

        checked = verify_package(folder, key)
        if not checked.ok:
            output.result(answer(checked, locate(package)))
            return ExitCode.REFUSED
    with Terminal(quiet=quiet) as terminal:
        if finds is not None:
            found = replaying.replay_finds(folder, finds, terminal, base=base, work=work)
        else:
            found = replaying.replay(folder, terminal, base=base, sample=sample, fresh=fresh, seed=seed or 0, work=work)
    if signing is not None and statement is not None:
        _write(found, folder, signing, statement)
    if as_json:
        output.document(as_data(found))
    else:
        output.result(as_text(found, statement, verified=key is not None))
    return found.code


def _require_possible(
    key: Path | None, fresh: int | None, finds: Path | None, seed: int | None, own: str | None, statement: Path | None
) -> None:
    """Refuse options that do not go together, before anything is read.

    Raises:
        UsageError: says which.
    """
    if (own is None) != (statement is None):
        raise UsageError("--sign and --statement go together", where="replay", hint="Give both, or neither.")
    if own is not None and key is None:
        raise UsageError("a statement is about a verified package", where="--sign", hint="Give --key as well.")
    if fresh is not None and finds is not None:
        raise UsageError("--fresh and --finds ask for different things", where="replay", hint="Give one of them.")
    if fresh is not None and seed is None:
        raise UsageError(
            "new images need seeds of yours", where="--fresh", hint="Give --seed, such as --seed 91100452."
        )
    if statement is not None and statement.exists():
        raise UsageError("there is a file already", where=str(statement), hint="Give another name with --statement.")


def _write(found: Replay, folder: Path, signing: Signer, statement: Path) -> None:
    from publisher.model.digest import sha256_file
    from publisher.model.files import write_atomic
    from publisher.package.layout import REPORT
    from publisher.package.sign import attest
    from publisher.package.witness import test_statement

    groups = {name: [] for name in ("passed", "warned", "failed")}  # type: dict[str, list[str]]
    for test, result in tests(found).items():
        groups[result].append(test)
    how = {"outcome": found.outcome, "seed": found.seed, "images": len(found.images), "fresh": bool(found.checks)}
    data = test_statement(found.sums, sha256_file(folder / REPORT), **groups, how=how)
    write_atomic(statement, attest(data, signing))


def tests(found: Replay) -> dict[str, str]:
    """Return the name of each thing that was tried -> ``passed``, ``warned`` or ``failed``."""
    if found.checks:
        words = {"compatible": "passed", "contradicts": "failed"}
        return {
            f"fresh:{one.check}": words.get(one.outcome, "warned") if one.gate else "warned" for one in found.checks
        }
    words = {"reproduced": "passed", "agrees": "passed", "contradicts": "failed"}
    return {"finds" if found.finds else "evidence-sample": words.get(found.outcome, "warned")}


def as_data(found: Replay) -> dict[str, Any]:
    """Return what was found as JSON data."""
    return {
        "outcome": found.outcome,
        "exit_code": int(found.code),
        "package": f"{found.report.name} {found.report.version}",
        "sums_sha256": found.sums,
        "seed": found.seed,
        "images": {
            "n": len(found.images),
            "same_base": sum(one.same_base for one in found.images),
            "same_hardened": sum(one.same_hardened for one in found.images),
            "judged": sum(one.agrees is not None for one in found.images),
            "agree": sum(one.agrees is True for one in found.images),
            "largest_shift": max((abs(one.shift) for one in found.images), default=None),
            "different": [
                {"check": one.check, "concept": one.concept, "prompt": one.prompt, "seed": one.seed}
                for one in found.images
                if one.agrees is False or not (one.same_base and one.same_hardened)
            ],
        },
        "checks": [_check(one) for one in found.checks],
        "finds": [{**asdict(one), "agrees": one.agrees.count(True)} for one in found.finds],
        "left_out": list(found.left_out),
        "lines_left_out": dict(found.lines_left_out),
    }


def _check(one: FreshCheck) -> dict[str, Any]:
    return {
        "id": one.check,
        "outcome": one.outcome if one.gate else "reported",
        "found": one.found.as_json() if one.found else None,
        "claimed": one.claimed.as_json() if one.claimed else None,
        "gate": one.gate.as_json() if one.gate else None,
        "reason": one.reason,
    }


def as_text(found: Replay, statement: Path | None, *, verified: bool) -> str:
    """Return what was found, for a person."""
    from publisher.release.finds import WHY

    lines = [f"{found.outcome.upper()}: {found.report.name} {found.report.version}: {SENTENCES[found.outcome]}"]
    lines += [] if verified else ["  the signature was not checked: give --key"]
    if found.images:
        data = as_data(found)["images"]
        n = data["n"]
        lines.append(f"  {data['same_base']} of {n} images of the base model have the recorded digest")
        lines.append(f"  {data['same_hardened']} of {n} images of the hardened model have it")
        lines.append(f"  the scorers see in {data['agree']} of {data['judged']} what the evidence says")
        lines.append(f"  distances are within {data['largest_shift']:.4f} of the recorded ones")
        lines += [f"  differs: {one['check']}, {one['prompt']!r}, seed {one['seed']}" for one in data["different"][:10]]
    for find in found.finds:
        where = f"  find {find.number} of {find.check}, {find.concept!r}: "
        if not find.sealed:
            lines.append(f"{where}the package has not sealed it")
        elif find.left_out:
            lines.append(f"{where}sealed; left out")
        else:
            judged = f"the scorer sees in {find.agrees.count(True)} of {find.n} what the evidence says"
            lines.append(f"{where}sealed; {find.same} of {find.n} images have the recorded digest; {judged}")
    for one in found.checks:
        claimed = f", claimed {_interval(one.claimed)}" if one.claimed else ""
        number = f"{_interval(one.found)}{claimed}" if one.found else one.reason
        lines.append(f"  {one.outcome if one.gate else 'reported'}: {one.check}: {number}")
    if found.left_out:
        why = "there are no finds of them" if found.finds else "their attacks train, search or change weights"
        lines.append(f"  not made again, as {why}: {', '.join(found.left_out)}")
    what = "finds" if found.finds else "lines of evidence"
    lines += [f"  {what} left out: {count}, as {WHY[why]}" for why, count in found.lines_left_out.items()]
    lines += [f"  signed: {statement}"] if statement else []
    return "\n".join(map(printable, lines))


def _interval(one: Any) -> str:
    return f"{one.value:.4g} ({one.low:.4g} to {one.high:.4g}, n {one.n})"
