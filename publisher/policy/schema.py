"""The policy's sections. The docstrings are the reference page and the descriptions in the JSON Schema."""

from __future__ import annotations

from datetime import date as calendar_date
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from publisher.api import Binding, Kind, Params

Text = Annotated[str, Field(min_length=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Some = Annotated[tuple[Text, ...], Field(min_length=1)]


def _day(text: str) -> str:
    try:
        return calendar_date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"there is no day '{text}': write year-month-day, such as 2026-11-22") from None


class Requirement(Params):
    """A test that every release must have, and what it must have shown."""

    kind: Kind | None = None
    """Kind of concepts to go: each of them must be tested, and there must be one. Default: one such check must be
    there, about anything, and every such check counts."""
    attacks: Some
    """Names of attacks; each must have been tried."""
    metric: Text
    """Name of the metric."""
    upper_at_most: float | None = None
    """Largest allowed upper end of the interval; of each concept alone where a check has several."""
    lower_at_least: float | None = None
    """Smallest allowed lower end of the interval."""
    n_at_least: int | None = Field(default=None, ge=1)
    """Least number of observations behind the number."""
    binds: Binding | None = None
    """Where the claim has to hold at least: ``in-weights`` is more than ``in-pipeline``, that more than
    ``by-convention``."""


class PluginRules(Params):
    """Whose code may take part."""

    distributions: Some | None = None
    """Names of the distributions that plugins may come from. Default: any."""
    digests: Annotated[dict[str, Digest], Field(min_length=1)] | None = None
    """Plugin such as ``step/erase`` -> sha256 of its source files, which it must have if it takes part."""


class Waiver(Params):
    """An exception for one check. All four keys are needed; after its last day it is a breach itself."""

    check: Text
    """Id of the check, as ``publisher plan`` lists it."""
    reason: Text
    """Why the policy is not asked of it."""
    approver: Text
    """Person or board that answers for it."""
    expires: Annotated[str, AfterValidator(_day)]
    """Last day on which it counts, such as ``2026-12-31``."""


class Policy(Params):
    """What an organisation asks of every release, besides the release's own gates. It can only refuse more."""

    policy: Literal[1] = 1
    """Version of this format."""
    keys: Some | None = None
    """Public keys, as seen from the policy's folder: one of them must have signed. Default: the key that is given."""
    require: Annotated[tuple[Requirement, ...], Field(min_length=1)] | None = None
    """Tests that must be there, and what they must have shown."""
    scorers: Annotated[dict[str, Digest], Field(min_length=1)] | None = None
    """Scorer's registered name -> sha256 of its weights. What another one judged counts as unknown."""
    plugins: PluginRules | None = None
    """Whose code may take part."""
    max_age: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}d$")] | None = None
    """Most days since the decision was signed, such as ``180d``; asked by ``verify``."""
    licenses: Some | None = None
    """Licences that a package may have, as the manifest writes them."""
    waivers: tuple[Waiver, ...] = ()
    """Exceptions for single checks, from what this policy asks; never from a release's own gates."""
