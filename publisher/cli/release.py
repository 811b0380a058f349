"""``publisher release``: the whole way from a manifest to a signed package."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
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
    from publisher.package.dsse import Signer
    from publisher.package.keys import PrivateKey
    from publisher.release.make import Outcome


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@out_option
@work_option
@click.option(
    "--key",
    metavar="KEY",
    help="What signs, in place of the manifest's sign.key_env: the path of a private key, env:NAME of a variable that "
    "holds one in PEM, a pkcs11: URI of one in a token, or sigstore for this CI job's identity.",
)
@click.option(
    "--passphrase-env", metavar="VARIABLE", help="Environment variable with the key's passphrase or the token's PIN."
)
@click.option(
    "--certificate-chain",
    "chain",
    type=click.Path(path_type=Path),
    help="Certificates of the key in PEM: the signer's first, the root last. All but the root go into the package.",
)
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
    key: str | None,
    passphrase_env: str | None,
    chain: Path | None,
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
      publisher release manifest.yaml --key env:SIGNING_KEY --certificate-chain chain.pem
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

    if (key or chain) and throwaway_key:
        raise UsageError("--throwaway-key excludes --key and --certificate-chain")
    work = work or out / ".work"
    rules = load_policy(policy) if policy else None
    resolved = read(manifest, load_registry().catalog())
    with Terminal(quiet=quiet) as terminal, ExitStack() as stack:
        if throwaway_key:
            signing: Signer = stack.enter_context(_throwaway_key())
        else:
            signing = _signer(resolved, key, passphrase_env, chain)
        given = throwaway_key or _given(signing)
        outcome = make_release(manifest, out, work, signing, terminal, policy=rules, give_key=given)
    with complete(outcome.package):
        public = _public_key(outcome, signing, given=given)
        write_outputs(_outputs(outcome))
        if as_json:
            output.document(as_data(outcome, public))
        else:
            trust = _trust(signing, public) if outcome.package else ([], "")
            output.result(as_text(outcome, *trust, thrown_away=throwaway_key))
    return outcome.code


def _outputs(outcome: Outcome) -> dict[str, str]:
    """Return what later steps of a workflow ask for; without a package its path is empty."""
    package = str(outcome.package) if outcome.package else ""
    return {"package": package, "report": str(outcome.reports), "decision": outcome.decision}


def _public_key(outcome: Outcome, signing: Signer, *, given: bool) -> str | None:
    """Return the file with the public half of the key that signed; None: it is not known, or it was no key alone."""
    from publisher.package.keys import PrivateKey
    from publisher.release.places import key_of

    if given:
        return str(key_of(outcome.package)) if outcome.package else None
    if not isinstance(signing, PrivateKey) or signing.path is None:
        return None
    beside = signing.path.with_suffix(".pub")
    return str(beside) if beside.is_file() else None


def _given(signing: Signer) -> bool:
    """Return whether the public key is put beside the package, since it is in no file."""
    from publisher.package.keys import KeySigner, PrivateKey

    return isinstance(signing, KeySigner) and (not isinstance(signing, PrivateKey) or signing.path is None)


def _trust(signing: Signer, public: str | None) -> tuple[list[str], str]:
    """Return how to say whom to trust: as options of the commands, and as ``verify_key`` in Python."""
    from publisher.package.certificates import CertificateAnchor
    from publisher.package.keyless import KeylessAnchor

    anchor = None if signing.hint else signing.anchor
    if isinstance(anchor, CertificateAnchor):
        root, name = "ROOT.pem", anchor.identity
        return ["--root", root, "--identity", name], f"publisher.trust(root={root!r}, identity={name!r})"
    if isinstance(anchor, KeylessAnchor):
        name, issuer = anchor.identity, anchor.issuer
        return ["--identity", name, "--issuer", issuer], f"publisher.trust(identity={name!r}, issuer={issuer!r})"
    return ["--key", public or "PUBLIC_KEY"], repr(public or "PUBLIC_KEY")


@contextmanager
def _throwaway_key() -> Iterator[PrivateKey]:
    """Make a key in a private temporary folder: nobody can sign with it, or upload it, once the block has ended."""
    from publisher.package import keys

    with tempfile.TemporaryDirectory(prefix="publisher-key-") as folder:
        path = Path(folder) / "publisher.key"
        keys.generate(path, path.with_suffix(".pub"), None)
        yield keys.load_private(path)


def _signer(resolved: Resolved, key: str | None, passphrase_env: str | None, chain: Path | None) -> Signer:
    """Return who signs, by the command line or the manifest: tried before anything is computed."""
    from publisher.package.keyless import TOKEN
    from publisher.package.signers import signer

    where = "--passphrase-env"
    if key is None and resolved.sign is not None:
        key = _named_key(environment(resolved.sign.key_env, "sign.key_env"))
        if passphrase_env is None:
            passphrase_env, where = resolved.sign.passphrase_env, "sign.passphrase_env"
    if key is None:
        raise UsageError(
            "there is no key to sign with",
            hint="Give --key FILE, or 'sign: {key_env: VARIABLE}' in the manifest. To make one: "
            f"{command('keygen --out keys')}\nTo try it out: --throwaway-key",
        )
    output.hide(os.environ.get(TOKEN, ""))
    return signer(key, passphrase(passphrase_env, where), chain)


def _named_key(value: str) -> str:
    """Return what a variable says of the key. What is no file's path can be the key itself, and is never shown."""
    if value == "sigstore" or value.startswith("pkcs11:"):
        return value
    if not os.path.isfile(value):  # noqa: PTH113  # Path.is_file raises for a name as long as a key
        raise UsageError(
            "the environment variable that it names does not hold the path of a key file",
            where="sign.key_env",
            hint="It must hold the path of the file, a pkcs11: URI or 'sigstore', not the key itself.\n"
            "For a key in a variable give --key env:NAME.",
        )
    return value


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


def as_text(outcome: Outcome, options: Sequence[str], trust: str, *, thrown_away: bool = False) -> str:
    """Return the verdict, the claims and what to do next.

    Args:
        outcome: of the release.
        options: whom to trust, as a command's options.
        trust: the same in Python, for ``verify_key``.
        thrown_away: the key exists no more.
    """
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
            f"Verify it: {command(shlex.join(['verify', str(outcome.package), *options]))}",
            *_loading(outcome, trust),
            *(["", f"Pictures:  {pictures} (base model above, hardened below)"] if pictures.is_file() else []),
        ]
    )


def _loading(outcome: Outcome, trust: str) -> list[str]:
    """Return how to load the package, with membranes where it has some that open by the prompt."""
    if outcome.report.permeabilities is not None:
        return [
            "Load it:   import publisher",
            f"           publisher.load({str(outcome.package)!r}, verify_key={trust})",
            "           (plain diffusers loads it without its membranes)",
        ]
    return [
        "Load it:   from diffusers import DiffusionPipeline",
        f"           DiffusionPipeline.from_pretrained({str(outcome.package)!r})",
    ]
