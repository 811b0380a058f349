"""``publisher release``: the whole way from a manifest to a signed package."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from publisher.cli import output
from publisher.cli.options import environment, out_option, passphrase, policy_option, work_option
from publisher.errors import UsageError
from publisher.program import command

if TYPE_CHECKING:
    from publisher.api import ReleaseReport
    from publisher.manifest.resolve import Resolved
    from publisher.package.keys import PrivateKey
    from publisher.release.make import Outcome


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@out_option
@work_option
@click.option(
    "--key", type=click.Path(path_type=Path), help="Private key that signs, in place of the manifest's sign.key_env."
)
@click.option("--passphrase-env", metavar="VARIABLE", help="Environment variable with the key's passphrase.")
@click.option(
    "--throwaway-key",
    is_flag=True,
    help="Sign with a new key that is thrown away when the run ends: for trying it out.",
)
@policy_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--quiet", is_flag=True, help="No progress.")
def release(
    manifest: Path,
    out: Path,
    work: Path | None,
    *,
    key: Path | None,
    passphrase_env: str | None,
    throwaway_key: bool,
    policy: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Harden a model after a manifest, attack the result, sign the package.

    The package OUT/NAME-VERSION appears only if every claim passed; the reports in OUT/NAME-VERSION.report always do.
    A run that was stopped goes on with the same command. In a workflow of GitHub Actions the outputs package, report
    and decision are written to $GITHUB_OUTPUT.

    \b
    Examples:
      publisher release manifests/quickstart.yaml --throwaway-key
      publisher release manifest.yaml --key keys/publisher.key --out releases
      publisher release manifest.yaml --json > result.json

    Exit codes: 0 released; 1 a gate failed or the policy is broken, nothing was signed; 2 edit the command, the
    manifest or the model; 3 could not decide; 4 too little was measured; 130 and 143 interrupted.
    """
    from publisher.ci.github import write_outputs
    from publisher.cli.console import Terminal
    from publisher.manifest.resolve import read
    from publisher.policy import load_policy
    from publisher.registry import load_registry
    from publisher.release.make import release as make_release
    from publisher.release.places import complete

    if key and throwaway_key:
        raise UsageError("--key and --throwaway-key exclude each other")
    work = work or out / ".work"
    rules = load_policy(policy) if policy else None
    resolved = read(manifest, load_registry().catalog())
    with Terminal(quiet=quiet) as terminal, ExitStack() as stack:
        if throwaway_key:
            signing = stack.enter_context(_throwaway_key())
        else:
            signing = _signing_key(resolved, key, passphrase_env)
        outcome = make_release(manifest, out, work, signing, terminal, policy=rules, give_key=throwaway_key)
    with complete(outcome.package):
        public = _public_key(outcome, signing, thrown_away=throwaway_key)
        write_outputs(_outputs(outcome))
        if as_json:
            output.document(as_data(outcome, public))
        else:
            output.result(as_text(outcome, public or "PUBLIC_KEY", thrown_away=throwaway_key))
    return outcome.code


def _outputs(outcome: Outcome) -> dict[str, str]:
    """Return what later steps of a workflow ask for; without a package its path is empty."""
    package = str(outcome.package) if outcome.package else ""
    return {"package": package, "report": str(outcome.reports), "decision": outcome.decision}


def _public_key(outcome: Outcome, signing: PrivateKey, *, thrown_away: bool) -> str | None:
    """Return the file with the public half of the key that signed; None: nobody knows where it is."""
    from publisher.release.places import key_of

    if thrown_away:
        return str(key_of(outcome.package)) if outcome.package else None
    beside = signing.path.with_suffix(".pub")
    return str(beside) if beside.is_file() else None


@contextmanager
def _throwaway_key() -> Iterator[PrivateKey]:
    """Make a key in a private temporary folder: nobody can sign with it, or upload it, once the block has ended."""
    from publisher.package import keys

    with tempfile.TemporaryDirectory(prefix="publisher-key-") as folder:
        path = Path(folder) / "publisher.key"
        keys.generate(path, path.with_suffix(".pub"), None)
        yield keys.load_private(path)


def _signing_key(resolved: Resolved, path: Path | None, passphrase_env: str | None) -> PrivateKey:
    """Return the key of the command line, or the manifest's: read before anything is computed."""
    from publisher.package import keys

    where = "--passphrase-env"
    if path is None and resolved.sign is not None:
        path = _named_key(environment(resolved.sign.key_env, "sign.key_env"))
        if passphrase_env is None:
            passphrase_env, where = resolved.sign.passphrase_env, "sign.passphrase_env"
    if path is None:
        raise UsageError(
            "there is no key to sign with",
            hint="Give --key FILE, or 'sign: {key_env: VARIABLE}' in the manifest. To make one: "
            f"{command('keygen --out keys')}\nTo try it out: --throwaway-key",
        )
    return keys.load_private(path, passphrase(passphrase_env, where))


def _named_key(value: str) -> Path:
    """Return the path that a variable holds. What is no file's path can be the key itself, and is never shown."""
    if not os.path.isfile(value):  # noqa: PTH113  # Path.is_file raises for a name as long as a key
        raise UsageError(
            "the environment variable that it names does not hold the path of a key file",
            where="sign.key_env",
            hint="It must hold the path of the file, not the key itself.",
        )
    return Path(value)


def as_data(outcome: Outcome, public: str | None) -> dict[str, Any]:
    """Return the outcome as JSON data; ``public`` is the file of the public key."""
    report = outcome.report
    return {
        "decision": outcome.decision,
        "exit_code": int(outcome.code),
        "name": report.name,
        "version": report.version,
        "package": str(outcome.package) if outcome.package else None,
        "public_key": public,
        "reports": str(outcome.reports),
        "claims": claims_as_data(report),
        **({"policy": report.policy.as_json()} if report.policy else {}),
        "seconds": {name: round(value, 2) for name, value in outcome.seconds.items()},
        "cached": list(outcome.cached),
    }


def claims_as_data(report: ReleaseReport) -> list[dict[str, Any]]:
    """Return the claims with their checks in brief, as JSON data."""
    return [
        {
            "id": claim.id,
            "sentence": claim.sentence,
            "verdict": claim.verdict,
            "checks": [
                {
                    "id": check.id,
                    "verdict": check.verdict,
                    "reason": check.reason,
                    "measured": check.measurement.hardened.as_json() if check.measurement else None,
                }
                for check in claim.checks
            ],
        }
        for claim in report.claims
    ]


def as_text(outcome: Outcome, public: str, *, thrown_away: bool = False) -> str:
    """Return the verdict, the claims and what to do next; the key may be one that exists no more."""
    from publisher.package.layout import PICTURES
    from publisher.report.terminal import lines

    text = [*lines(outcome.report, outcome.relearning), ""]
    page = outcome.reports / "index.html"
    if outcome.package is None:
        return "\n".join([*text, "No package was made and nothing was signed.", "", f"Read why:  {page}"])
    pictures = outcome.package / PICTURES
    return "\n".join(
        [
            *text,
            f"Package:   {outcome.package}",
            f"Report:    {page}",
            *(["Key:       thrown away; this signature is for trying it out"] if thrown_away else []),
            f"Verify it: {command(shlex.join(['verify', str(outcome.package), '--key', public]))}",
            *_loading(outcome, public),
            *(["", f"Pictures:  {pictures} (base model above, hardened below)"] if pictures.is_file() else []),
        ]
    )


def _loading(outcome: Outcome, public: str) -> list[str]:
    """Return how to load the package, with membranes where it has some that open by the prompt."""
    if outcome.report.permeabilities is not None:
        return [
            "Load it:   import publisher",
            f"           publisher.load({str(outcome.package)!r}, verify_key={public!r})",
            "           (plain diffusers loads it without its membranes)",
        ]
    return [
        "Load it:   from diffusers import DiffusionPipeline",
        f"           DiffusionPipeline.from_pretrained({str(outcome.package)!r})",
    ]
