"""``README.md`` of a package: the model card."""

from __future__ import annotations

from publisher.api import ClaimRecord, ReleaseReport
from publisher.package.card_access import access, pictures
from publisher.package.card_metadata import front_matter
from publisher.package.card_training import relearning
from publisher.package.layout import BASE_CARD
from publisher.package.own_card import OwnCard
from publisher.package.pictures import PictureStrip
from publisher.report.limits import limits, whose
from publisher.report.rows import check_table, columns
from publisher.report.verdicts import made_by
from publisher.report.wording import package_folder
from publisher.safeguards import ALL
from publisher.text import code, markdown, printable


def render(
    report: ReleaseReport,
    *,
    base_card: bool,
    strip: PictureStrip | None = None,
    own: OwnCard | None = None,
    license_file: str = "",
    fp16: bool = False,
) -> bytes:
    """Render the card: what was hardened and shown, with which limits, how to verify, how to load.

    Args:
        report: the release's.
        base_card: the base model's own card is in the package.
        strip: pictures in the package; None: there are none.
        own: the publisher's own part, which comes first; None: there is none.
        license_file: file in the package with the text of the licence; empty: there is none.
        fp16: the package has the half-precision variant of its weights.
    """
    sections = [
        f"---\n{front_matter(report, own, license_file)}---",
        f"# {markdown(report.name)} {markdown(report.version)}",
        own.text if own else "",
        _lead(report),
        _publisher(report),
        pictures(strip),
        access(report),
        _what(report),
        _claims(report),
        relearning(report),
        *(one.section(report, package_folder(report)) for one in ALL),
        _limits(report),
        _verify(report),
        _load(report),
        _half(report) if fp16 else "",
        _origin(report, base_card=base_card),
    ]
    return ("\n\n".join(section for section in sections if section) + "\n").encode()


def _lead(report: ReleaseReport) -> str:
    return (
        f"A hardened copy of {code(report.model.source)} ({code(report.model.family)}).\n"
        f"The release's decision is **{report.decision}**: the worst verdict of all claims below."
    )


def _publisher(report: ReleaseReport) -> str:
    """Return who publishes the model and for what, and which hazards its concepts belong to; empty: nothing is said."""
    said = report.publisher
    named = {"Provider": said.provider, "Contact": said.contact, "Acceptable use": said.acceptable_use}
    named |= {f"Hazard of {one.name}": one.hazard for one in report.concepts}
    return "\n".join(f"- {markdown(name)}: {markdown(text)}" for name, text in named.items() if text)


def _what(report: ReleaseReport) -> str:
    lines = ["## What was hardened", ""]
    for step in report.steps:
        changed = ", ".join(f"{count} tensors of {code(name)}" for name, count in sorted(step.changed.items()))
        origin = f"{markdown(step.origin.distribution)} {markdown(step.origin.version)}"
        lines.append(
            f"- {code(step.id)}: {markdown(step.name)} {markdown(step.version)} ({origin}) "
            f"changed {changed or 'no tensor'}"
        )
        lines += [f"  - Made elsewhere: {markdown(one.sentence())}" for one in step.credits]
    return "\n".join(lines if report.steps else [*lines, "Nothing: no step was run."])


def _claims(report: ReleaseReport) -> str:
    lines = ["## Claims", ""]
    for claim in report.claims:
        lines += [*_claim(claim), ""]
    return "\n".join(lines if report.claims else [*lines, "None."]).rstrip()


def _claim(claim: ClaimRecord) -> list[str]:
    lines = [
        f"### {claim.verdict}: {markdown(claim.sentence)}",
        "",
        f"Claim of {markdown(made_by(claim))}; binds {claim.binds}.",
    ]
    if claim.checks:
        lines += ["", *check_table(claim.checks, columns(brief=False))]
    return lines


def _limits(report: ReleaseReport) -> str:
    lines = [
        f"- {markdown(limit)}{f' ({markdown(whose(report, claims))})' if claims else ''}"
        for limit, claims in limits(report)
    ]
    return "\n".join(["## What this release does not prove", "", *lines]) if lines else ""


def _verify(report: ReleaseReport) -> str:
    folder = package_folder(report)
    return f"""## How to verify

Get the publisher's public key from the publisher, not from this repository. Then:

```
pip install model-publisher
publisher verify {folder} --key publisher.pub
```

Any client of OpenSSF Model Signing can check the signature too:

```
model_signing verify key {folder} --signature {folder}/model.sig --public_key publisher.pub
```"""


_PLAIN = """```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{folder}", use_safetensors=True)
```"""


def _load(report: ReleaseReport) -> str:
    folder = package_folder(report)
    own = [text for one in ALL if (text := one.loading(report, folder))]
    return "\n\n".join(["## How to load", *(own or [_PLAIN.format(folder=folder)])]) + _loaded_with(report)


def _half(report: ReleaseReport) -> str:
    return f"""The weights are there in half precision too, rounded from those that were tested. The variant was not
tested by itself; `publisher verify` compares every number of it:

```python
import torch
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{package_folder(report)}", variant="fp16", dtype=torch.float16)
```"""


_LIBRARIES = ("diffusers", "transformers", "torch")


def _loaded_with(report: ReleaseReport) -> str:
    """Return the versions of the libraries that are known to load the package."""
    found = [f"{name} {printable(report.versions[name])}" for name in _LIBRARIES if name in report.versions]
    if not found:
        return ""
    return f"""

Before it was signed it was loaded with {", ".join(found)}: those versions load it, others were not tried.
An older transformers than the one that saved a text encoder may fill its weights at random and only warn."""


def _origin(report: ReleaseReport, *, base_card: bool) -> str:
    lines = [
        "## Where it comes from",
        "",
        f"Base model: {code(report.model.source)}, digest {code(report.model.digest)}.",
        "Steps, checks, numbers and evidence are in `release/reports/`, the manifest in",
        "`release/manifest.resolved.json`, signed statements in `release/attestations/`.",
        "Who ran the release also signed it: SLSA Build L1 at most.",
    ]
    if base_card:
        lines += ["", f"The base model's own card is `{BASE_CARD}`."]
    return "\n".join(lines)
