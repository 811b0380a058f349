"""The manifest's sections. The docstrings are the reference page and the descriptions in the JSON Schema."""

from __future__ import annotations

import re
from datetime import date as calendar_date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from publisher.api import Check, Gate, Kind, Params, Sampling
from publisher.manifest.templates import PLACEHOLDERS, placeholders

ID = r"^[a-z0-9][a-z0-9._-]{0,63}$"
ENVIRONMENT = r"^[A-Z_][A-Z0-9_]*$"

_ABSOLUTE = re.compile(r"(folder:|file:)?([/\\~]|[A-Za-z]:[/\\])")


def _day(text: str) -> str:
    try:
        calendar_date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"there is no day '{text}': write year-month-day, such as 2026-11-22") from None
    return text


def _reference(text: str) -> str:
    if _ABSOLUTE.match(text):
        raise ValueError(
            "a manifest is published with the package, so its model is no path of this machine: "
            "write the path as seen from the manifest's folder, such as ./model or ../models/base"
        )
    return text


def _prompt_template(text: str) -> str:
    for name in placeholders(text):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{placeholder}}}" for placeholder in PLACEHOLDERS)
            raise ValueError(f"{{{name}}} is no placeholder; there are {known}")
    return text


def _kind_template(text: str) -> str:
    if "name" not in placeholders(_prompt_template(text)):
        raise ValueError("without {name} every concept would get the same prompt")
    return text


def _from_short_form(entry: Any) -> Any:
    if isinstance(entry, dict):  # has left pydantic's JSON mode, in which a list may stand for a tuple
        return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    scalar = entry is None or isinstance(entry, str | int | float)
    return {"id": entry} if scalar else entry  # a number hears of the quotes that it needs where ids are checked


Text = Annotated[str, Field(min_length=1)]
Id = Annotated[str, Field(pattern=ID)]
Environment = Annotated[str, Field(pattern=ENVIRONMENT)]
Template = Annotated[str, Field(min_length=1), AfterValidator(_kind_template)]
OwnTemplate = Annotated[str, Field(min_length=1), AfterValidator(_prompt_template)]


class Release(Params):
    """What the package is called."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of the package."""
    version: str = Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,31}$")
    """Version of the package, in quotes where it looks like a number: ``"1.0"``."""
    license: Text
    """Licence of the package: an SPDX identifier such as ``CC-BY-4.0``, or the name of the model's own licence."""
    date: Annotated[str, AfterValidator(_day)] | None = None
    """Day of the release, such as ``2026-11-22``. Nothing is filled in: equal manifests give equal packages."""
    provider: Text | None = None
    """Legal name of who publishes the model."""
    contact: Text | None = None
    """Where to write about the model: a mail address or a page."""
    acceptable_use: Text | None = None
    """What the model may be used for: a sentence, or the address of a policy."""
    card: Text | None = None
    """Markdown file with the publisher's own text for the model card, as seen from the manifest. Its front matter is
    metadata for the hub, its PNG pictures travel in the package."""
    variants: tuple[Literal["fp16"], ...] = ()
    """Further number formats of the weights: ``fp16``, the tested weights rounded to half precision."""


class Prompts(Params):
    """Templates of the prompts that ask for a concept, for each kind. A concept's own ``prompts`` win over them.

    ``{name}`` is the concept's name (in paraphrases: a synonym). ``{object}``, ``{style}``, ``{person}`` and
    ``{unsafe}`` are the names of the *kept* concepts of that kind, one prompt for each. ``{a}`` is ``an`` before a, e,
    i, o, u and ``a`` before anything else; where English has it otherwise, write the article yourself. ``{{`` and
    ``}}`` are braces.
    """

    object: tuple[Template, ...] = ()
    """Templates for concepts of kind ``object``: ``["{a} {name} emoji"]``."""
    style: tuple[Template, ...] = ()
    """Templates for concepts of kind ``style``: ``["{a} {object} in {name} style"]``."""
    person: tuple[Template, ...] = ()
    """Templates for concepts of kind ``person``: ``["a photo of {name}"]``."""
    unsafe: tuple[Template, ...] = ()
    """Templates for concepts of kind ``unsafe``."""


class ConceptEntry(Params):
    """A concept: something to take out, or to keep. The short form ``- cigarette`` means ``- {id: cigarette}``."""

    id: Id
    """Name in this manifest, in claims and in the report."""
    kind: Kind = "object"
    """Sort of thing that it is. Images of the kinds ``person`` and ``unsafe`` are never stored."""
    name: Text | None = None
    """The words for it in a prompt. Default: the scorer's label that reads like the id, else the id with spaces for
    dashes and underscores."""
    synonyms: tuple[Text, ...] = ()
    """Other words for it, which a paraphrase would use."""
    hazard: Text | None = None
    """Hazard that it belongs to, in the words of a taxonomy such as AILuminate's; for card and report."""
    label: Text | None = None
    """The scorer's word for it. Default: the name if the scorer has it, else the label that reads like the id."""
    prompts: tuple[OwnTemplate, ...] = ()
    """Prompts that ask for it, in place of the templates of its kind; the same placeholders work here."""
    paraphrases: tuple[Text, ...] = ()
    """Prompts that ask for it in other words. Default: the prompts with each synonym in place of ``{name}``."""
    description: Text | None = None
    """A prompt that says what it looks like without naming it: attacks by training may use it as their caption."""
    images: tuple[Text, ...] = ()
    """Reference images (PNG or JPEG) as seen from the manifest's folder; a folder stands for the images in it. Steps
    that train get the first half of them, attacks the second. Default: the base model generates them."""


Entry = Annotated[ConceptEntry, BeforeValidator(_from_short_form, json_schema_input_type=ConceptEntry | Id)]


class Keep(Params):
    """What must survive: steps regularise on it, checks compare it with the base model."""

    rest_of: Text | None = None
    """A scorer's name, or an entry's id under ``evaluate.scorers``: keep every label of it that is not among the
    concepts to go."""
    concepts: tuple[Entry, ...] = ()
    """Further concepts to keep."""
    prompts: tuple[Text, ...] = ()
    """Texts to keep as they are, without a scorer's label."""


class StepEntry(Params):
    """One hardening action. Steps run in the manifest's order."""

    use: Text
    """Name of the step, as ``publisher plugins`` lists it."""
    id: Id | None = None
    """Name of this use of it. Default: the step's name; needed where a step is used twice."""
    concepts: Annotated[tuple[Id, ...], Field(min_length=1)] | None = None
    """Ids of the concepts to go that this step is about. Default: all of them."""
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    """Parameters of the step."""


def _listed(names: Any) -> Any:
    """Return one name as the only one of a list."""
    return (names,) if isinstance(names, str) else tuple(names) if isinstance(names, list) else names


Sheets = Annotated[tuple[Text, ...], BeforeValidator(_listed, json_schema_input_type=Text | list[Text])]


class ScorerEntry(Params):
    """One judge of images. Entries of one kind judge together: what they disagree about counts against the claim."""

    use: Text
    """Name of the scorer, as ``publisher plugins`` lists it."""
    id: Id | None = None
    """Name of this use of it, in checks and in the report. Default: the scorer's name."""
    for_: Annotated[tuple[Kind, ...], Field(min_length=1)] | None = Field(default=None, alias="for")
    """Kinds of concepts that it judges. Default: all that it knows."""
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    """Parameters of the scorer."""
    calibration: Sheets = ()
    """Calibration sheets of ``publisher calibrate``, as seen from the manifest: one file, or a list of one for each
    concept. Errors about other concepts are bounded by the base model's images."""
    decides: bool = True
    """False: a second opinion. It judges the same images, the report says how often it agrees, and no verdict depends
    on it unless a check names it."""


class ExecutorEntry(Params):
    """Where the tests run. The short form ``executor: local`` means ``executor: {use: local}``."""

    use: Text = "local"
    """Name of the executor, as ``publisher plugins`` lists it."""
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    """Parameters of the executor."""


Place = Annotated[
    ExecutorEntry,
    BeforeValidator(
        lambda entry: {"use": entry} if isinstance(entry, str) else entry, json_schema_input_type=ExecutorEntry | Text
    ),
]


class Evaluate(Params):
    """How the claims are tested."""

    scorer: Text | None = None
    """Who judges the images; the short form of ``scorers`` with one entry without parameters. Without a scorer, claims
    whose metrics read judgements are unknown."""
    scorers: tuple[ScorerEntry, ...] = ()
    """Judges of the images, each of its kinds of concepts."""
    executor: Place = ExecutorEntry()
    """Place where the tests run: a name, or a name with parameters."""
    sampling: Sampling = Sampling()
    """Steps, guidance and numbers of images that the tests generate with."""
    after_each_step: bool = False
    """Test the model before the first and after each step too, not only the package: the report then shows which step
    undid which claim."""
    trainings_after_each_step: bool = False
    """With ``after_each_step``: also repeat the attacks by training on earlier steps' claims. They are expensive;
    trials of equal models are made once."""
    gates: dict[str, Gate] = Field(default_factory=dict)
    """Check's id -> the gate to use in place of its own; ``publisher plan`` lists the ids. A check that several steps
    share (``kept``) keeps the strictest gate of each; name it, or one step's share of it (``erase.kept``)."""
    checks: tuple[Check, ...] = ()
    """Further checks, besides those of the steps' claims. One with the id of a check of the red team's suite stands in
    its place."""
    red_team: Literal["off", "quick", "standard", "thorough"] = "off"
    """Suite of attacks that search: each installed one that has this budget, for all concepts to go. What they find is
    reported, and promises nothing without a gate; ``publisher plan`` lists the checks and what they spend."""
    retrained: Annotated[Text, AfterValidator(_reference)] | None = None
    """A model that never knew the concepts, named like ``model``: attacks by training show what it takes there."""
    finds: Literal["seal", "publish"] = "seal"
    """What a package says of prompts, embeddings and images that brought a concept back: ``seal``, a salted hash, while
    they stay in the work folder; ``publish``, themselves. Those about persons and unsafe content are always sealed."""
    images: bool = True
    """Show pairs of images of the base and the hardened model in the report."""


class Sign(Params):
    """Who signs: names of environment variables. The key, its path and the passphrase never stand in a manifest."""

    key_env: Environment
    """Environment variable that holds the path of the private key's file (``publisher keygen`` makes one), the
    ``pkcs11:`` URI of a key in a token, or ``sigstore``."""
    passphrase_env: Environment | None = None
    """Environment variable that holds the key's passphrase or the token's PIN."""


class Manifest(Params):
    """A release: which model, what is to go and to stay, which steps, which tests, who signs."""

    manifest: Literal[1] = 1
    """Version of this format."""
    release: Release
    """Name, version and licence of the package."""
    model: Annotated[str, Field(min_length=1), AfterValidator(_reference)]
    """The base model: ``embedded:emoji``; a diffusers folder as seen from the manifest, such as ``./model``; or a
    pinned hub revision, ``hf:organisation/name@`` and the 40 hexadecimal digits of a commit."""
    base_safeguards: Literal["refuse", "drop"] = "refuse"
    """Where the base model is a released package: its membranes, its freeze mask and its claims are not carried on, so
    it is refused; ``drop`` gives them up knowingly, and the report says so."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """All random numbers of the steps derive from it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; ``auto`` is ``cuda`` where there is one."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format for networks that are run; the package keeps the base model's own."""
    prompts: Prompts = Prompts()
    """Templates of prompts for each kind of concept."""
    concepts: Annotated[tuple[Entry, ...], Field(min_length=1)]
    """Concepts to go."""
    keep: Keep = Keep()
    """Concepts and prompts to stay."""
    steps: Annotated[tuple[StepEntry, ...], Field(min_length=1)] = ()
    """Hardening actions, in this order. A release needs one at least; a test of a model as it is needs none."""
    evaluate: Evaluate = Evaluate()
    """The tests: who judges, how many images, which gates."""
    sign: Sign | None = None
    """Names of the variables that lead to the signing key."""
