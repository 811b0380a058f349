"""Attacks that search: they try, look at what comes out, and keep what brought the concept back.

A search touches nothing but a :class:`SearchTarget`. It gives what the attack's access allows, counts what is spent,
and refuses what nobody may generate. What is found is judged afterwards, on seeds that the search never saw.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import Field

from publisher.api.attacks import Access, Attack, ImageRequest, Sampling
from publisher.api.concepts import Concept
from publisher.api.families import Capability
from publisher.api.finds import Find, Limits, Search
from publisher.api.metrics import Measurement, Metric, Observation
from publisher.api.params import Params
from publisher.api.search_target import SearchTarget
from publisher.api.steps import P

if TYPE_CHECKING:
    import torch

Budget = Literal["quick", "standard", "thorough"]
Floor = Literal["retrained", "shuffled", "input"]
"""What shows which success is none: ``retrained``, the same search on ``evaluate.retrained``; ``shuffled``, the same
search on the hardened model for something that it cannot have; ``input``, what a picture or a latent that the images
begin from shows without any denoiser."""
Shuffle = Literal["concept", "judge", "base"]
Standing = Literal["decided", "powerless", "uninformative", "without floor"]
MOST_FINDS = 3
FINDS: Mapping[Budget, int] = MappingProxyType({"quick": 1, "standard": MOST_FINDS, "thorough": MOST_FINDS})
IMAGES_PER_FIND: Mapping[Budget, int] = MappingProxyType({"quick": 24, "standard": 60, "thorough": 60})


WITHOUT_FLOOR = (
    "nothing shows what the attack on {name!r} finds where there is nothing to find:"
    " name evaluate.retrained, or keep a concept of its kind"
)


class SearchParams(Params):
    """Parameters of every attack that searches."""

    budget: Budget = "quick"
    """How much is tried: sets the numbers that are not given."""
    finds: int | None = Field(default=None, ge=1, le=MOST_FINDS)
    """Number of finds that are kept and judged: the best ones. Default: 1 of a quick budget, else 3."""
    images_per_find: int | None = Field(default=None, ge=1, le=1000)
    """Images by which each find is judged, on seeds that the search did not see; default: 24 of a quick budget, else
    60."""


S = TypeVar("S", bound=SearchParams)


class SearchAttack(Attack[S], ABC):
    """Try many ways to a concept and keep the best.

    The verification runs the search on the hardened model, on the base model (does the attack work at all?) and on its
    floors (what would be found if nothing were there?), with the same random numbers and the same limits. The attack
    cannot tell which of them it is run on.

    Attributes:
        access: the row of the report that it belongs to: the largest of its grants.
        grants: all that the attacker needs to have. The target gives no more.
        floors: controls that show what chance and the attack's own input give; at least one.
        shuffles: how the floor ``shuffled`` is made. ``concept``: the search is made for a kept concept of the same
            kind, and looks for the concept. ``judge``: it is made for the kept concept and looks for it, and what it
            finds is judged for the concept. ``base``: the matrices of the base model are permuted among those of one
            shape.
        budgets: budget -> parameters that it sets where they are not given.
        suites: budgets in whose suites (``evaluate.red_team``) it stands, of those that it has; a slow one leaves the
            quick suite out.
        needs: what the model's family must have.
    """

    grants: ClassVar[frozenset[Access]]
    floors: ClassVar[tuple[Floor, ...]]
    shuffles: ClassVar[Shuffle] = "concept"
    budgets: ClassVar[Mapping[Budget, Mapping[str, Any]]] = MappingProxyType({})
    suites: ClassVar[frozenset[Budget]] = frozenset(get_args(Budget))
    needs: ClassVar[tuple[Capability, ...]] = ()

    def sized(self, params: S) -> S:
        """Return the parameters with the numbers that their budget stands for. Torch-free."""
        common = {"finds": FINDS[params.budget], "images_per_find": IMAGES_PER_FIND[params.budget]}
        numbers = {**common, **self.budgets.get(params.budget, {})}
        return params.filled(numbers)

    def pictures(self, params: S) -> int:  # noqa: ARG002
        """Return the number of pictures of the concept that the search looks at. Torch-free.

        Args:
            params: with the numbers of their budget.
        """
        return 0

    def requests(self, params: S, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return nothing: what a search asks for depends on what it sees."""
        return ()

    @abstractmethod
    def limits(self, params: S) -> Limits:
        """Return the most that a search spends on one concept and one model. Torch-free.

        Args:
            params: with the numbers of their budget.
        """

    @abstractmethod
    def search(self, params: S, target: SearchTarget, concept: Concept, generator: torch.Generator) -> Iterator[Find]:
        """Yield finds as they come; those with the highest score are kept, ``params.finds``. None: nothing was found.

        Of equal scores the later find is the better one. What was yielded before a crash, or before the budget is
        spent, counts.

        Args:
            params: with the numbers of their budget.
            target: the model.
            concept: what is looked for.
            generator: generator on the CPU; the only source of random numbers.
        """


def tells_nothing(measurement: Measurement) -> bool:
    """Return whether a measurement of searches says of every concept that its floor is as good as the base model.

    Such a number is *reported* whatever the gate: nothing that a model does could make it better or worse.
    """
    standing = measurement.details.get("standing")
    return isinstance(standing, dict) and bool(standing) and set(map(str, standing.values())) == {"uninformative"}


class SearchMetric(Metric[P], ABC):
    """Turns searches into a measurement. Checks pair it with an attack that searches alone.

    Its details name under ``standing`` what can be said of each concept: ``decided``; ``powerless``, the attack does
    not work on the base model either; ``uninformative``, its floor is as good as the base model; ``without floor``.
    What is powerless is never passed; a find of it that lies above its floor counts, and can fail a gate.
    """

    def measure(self, params: P, observations: Sequence[Observation]) -> Measurement:  # noqa: ARG002
        """Refuse: single images are no search.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"the metric {self.name!r} needs an attack that searches")

    @abstractmethod
    def read(self, params: P, searches: Sequence[Search]) -> Measurement:
        """Return the number of these searches: of the hardened model and of all controls, of all concepts of the check.

        Raises:
            ValueError: too little to say anything; the check becomes *unknown*.
        """
