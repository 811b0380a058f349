"""Run searches on the hardened model and on all controls, and judge what they find on seeds that no search saw.

A finished search is kept as a note, so that an interrupted run goes on with the next one; so are all images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from publisher.api import (
    Access,
    AccessDeniedError,
    BudgetSpent,
    CandidateRefused,
    Concept,
    Find,
    JudgedFind,
    Limits,
    Sampling,
    Scope,
    Search,
    SearchAttack,
    SearchParams,
)
from publisher.api.evidence import FindRow, SearchRow
from publisher.api.finds import Stop
from publisher.api.searching import MOST_FINDS
from publisher.api.words import kept_by_nearness
from publisher.errors import CRASHES, ModelError
from publisher.evaluate.context import ModelsUnderTest, ModelUnderTest, Setting, Tools, Unmeasured
from publisher.evaluate.finetune.data import AttackerImages, kept_prompts
from publisher.evaluate.images import close_models, machine
from publisher.evaluate.prepare import PreparedCheck
from publisher.evaluate.requests import one_line
from publisher.evaluate.scorers import identity
from publisher.evaluate.searching.costs import note_cost
from publisher.evaluate.searching.images import Gallery, judge_seed
from publisher.evaluate.searching.judging import judge_find
from publisher.evaluate.searching.target import MeteredTarget
from publisher.model.digest import seed_of, sha256_json
from publisher.runtime.generate import VERSION as GENERATION
from publisher.runtime.meter import Meter
from publisher.runtime.refusals import is_refused_candidate
from publisher.runtime.side_by_side import workers_for

VERSION = "5"
"""Raised when the same search finds something else."""


@dataclass(frozen=True)
class Searched:
    """All searches of a check."""

    rows: tuple[SearchRow, ...]
    """Concept by concept: of the hardened model, then of the controls."""


def run_searches(
    checks: Sequence[PreparedCheck],
    scope: Scope,
    models: ModelsUnderTest,
    tools: Tools,
    sampling: Sampling,
    setting: Setting,
) -> dict[str, Searched | Unmeasured]:
    """Run all searches of these checks.

    Args:
        checks: of attacks that search.
        scope: the concepts.
        models: the hardened model and all controls.
        tools: the scorers and the executor.
        sampling: how images are generated.
        setting: store, device, progress, and where finds are kept.

    Returns:
        Check's id -> its searches, or why there are none. A search that crashed is among them, with what it had found.

    Raises:
        PublisherError: the disk is full.
    """
    studio = AttackerImages(models.base, scope, sampling, setting, tools.executor, keep=True)
    runner = _SearchRunner(models, Gallery(scope, tools, sampling, setting, models.base, studio))
    try:
        return {check.check.id: runner.check(check) for check in checks}
    finally:
        close_models()


@dataclass(frozen=True)
class _SearchPlan:
    """One search: an attack, a concept, a model."""

    prepared: PreparedCheck
    attack: SearchAttack[Any]
    params: SearchParams
    concept: Concept
    name: str
    """Name of the model in the record."""
    model: ModelUnderTest
    aim: Concept
    """Concept that the attack is told."""
    goal: Concept
    """Concept that its images are looked at for."""
    kept: Concept | None = None
    """Kept concept that reads most like the one that goes, and is not what the attack is told."""
    permuted: bool = False

    @property
    def scorer(self) -> str:
        """Id of the scorer of the concept."""
        return self.prepared.scorers[self.concept.id]


@dataclass
class _Outcome:
    """What came out of a search."""

    finds: list[Find] = field(default_factory=list)
    spent: Limits = field(default_factory=Limits)
    tried: int = 0
    hits: int = 0
    input_hits: int | None = None
    refused: int = 0
    stop: Stop = "nothing"
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {**vars(self), "finds": [one.as_json() for one in self.finds], "spent": self.spent.as_json()}

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> _Outcome:
        """Return what :meth:`as_json` gave."""
        return cls(
            **{**data, "finds": [Find.parse(one) for one in data["finds"]], "spent": Limits.parse(data["spent"])}
        )


@dataclass(eq=False)
class _SearchRunner:
    models: ModelsUnderTest
    gallery: Gallery
    near: dict[str, tuple[Concept, ...]] = field(default_factory=dict)
    """Concept's id -> kept concepts of its kind, those first that read most like it."""

    @property
    def setting(self) -> Setting:
        """Where images and finds are kept."""
        return self.gallery.setting

    def check(self, prepared: PreparedCheck) -> Searched | Unmeasured:
        """Run the searches of one check, and judge its finds."""
        attack, params = prepared.attack, prepared.attack_params
        if not isinstance(attack, SearchAttack) or not isinstance(params, SearchParams):
            return Unmeasured(f"the attack {prepared.check.attack!r} does not search")
        try:
            self.models.hardened.anatomy.require(attack.needs, f"the attack {attack.name!r}")
            if count := attack.pictures(params):
                for concept in prepared.concepts:
                    self.gallery.require_shown(concept, count, prepared.scorers[concept.id])
            rows = [
                self._row(plan)
                for concept in prepared.concepts
                for plan in self._plans(prepared, attack, params, concept)
            ]
        except (Unmeasured, ModelError, AccessDeniedError) as error:
            return error if isinstance(error, Unmeasured) else Unmeasured(error.what)
        return Searched(tuple(rows))

    def _plans(
        self, prepared: PreparedCheck, attack: SearchAttack[Any], params: SearchParams, concept: Concept
    ) -> Iterator[_SearchPlan]:
        """Yield the search on the hardened model, then those on the controls that there are."""
        hardened = self.models.hardened if prepared.check.attached else self.models.hardened.bare
        common = (prepared, attack, params, concept)
        near, further, *_ = *self._neighbours(concept)[:2], None, None
        yield _SearchPlan(*common, "hardened", hardened, concept, concept, near)
        yield _SearchPlan(*common, "base", self.models.base.bare, concept, concept, near)
        if "retrained" in attack.floors and self.models.retrained:
            yield _SearchPlan(*common, "retrained", self.models.retrained.bare, concept, concept, near)
        if "shuffled" in attack.floors and attack.shuffles == "base":
            yield _SearchPlan(*common, "shuffled", hardened, concept, concept, near, permuted=True)
        elif "shuffled" in attack.floors and near:
            goal = near if attack.shuffles == "judge" else concept
            yield _SearchPlan(*common, "shuffled", hardened, near, goal, further)

    def _neighbours(self, concept: Concept) -> tuple[Concept, ...]:
        """Return the kept concepts of a concept's kind, those first that read most like it."""
        scope = self.gallery.scope
        if concept.id not in self.near:
            try:
                found = kept_by_nearness(concept, scope, self.models.base)
            except ModelError as error:
                found = tuple(one for one in scope.keep if one.kind == concept.kind and one.id != concept.id)
                self.setting.warn(f"the first of 'keep' stand for neighbours of {concept.id!r}: {error.what}")
            self.near[concept.id] = found
        return self.near[concept.id]

    def _row(self, plan: _SearchPlan) -> SearchRow:
        outcome, seconds = self._searched(plan)
        began = time.monotonic()
        judged = [self._judged(plan, find) for find in outcome.finds]
        if seconds is not None:
            self._note(outcome.spent, seconds)
            looked = sum(one.n * (1 if one.base_hits is None else 2) for one, _ in judged)
            self._note(Limits(images=looked), time.monotonic() - began)
        search = Search(
            concept=plan.concept.id,
            model=plan.name,
            stop=outcome.stop,
            problem=outcome.problem,
            spent=outcome.spent,
            tried=outcome.tried,
            hits=outcome.hits,
            input_hits=outcome.input_hits,
            refused=outcome.refused,
            finds=tuple(one for one, _ in judged),
        )
        rows = tuple(row for _, row in judged)
        return SearchRow(check=plan.prepared.check.id, model=plan.model.key, search=search, finds=rows)

    def _searched(self, plan: _SearchPlan) -> tuple[_Outcome, float | None]:
        """Return what a search finds, and the seconds it took; None: it was made before, and comes from the store."""
        key = self._key(plan)
        stored = self.setting.store.note(key)
        if stored is not None:
            found = _Outcome.of_json(stored)
            if all(one.tensors is None or self.setting.vault.data(one.tensors) for one in found.finds):
                return found, None
        began = time.monotonic()
        outcome = self._search(plan)
        seconds = time.monotonic() - began
        if outcome.stop != "crashed":
            self.setting.store.put_note(key, outcome.as_json())
        return outcome, seconds

    def _note(self, spent: Limits, seconds: float) -> None:
        """Remember what a search or a judgement took here, for the next plan."""
        machine = f"{self.setting.device} {self.setting.dtype}"
        if spent != Limits():
            note_cost(self.setting.store, self.models.base.digest, machine, spent, seconds)

    def _search(self, plan: _SearchPlan) -> _Outcome:
        import torch

        attack, limits = plan.attack, plan.attack.limits(plan.params)
        target = MeteredTarget(
            plan.model,
            self.models.base,
            plan.goal,
            plan.scorer,
            attack.grants,
            limits,
            self.gallery,
            self.gallery.studio,
            plan.aim,
            plan.permuted,
            plan.kept,
            plan.goal.id == plan.concept.id,
        )
        seed = seed_of("search", self.gallery.sampling.seed, attack.name, plan.concept.id)
        outcome = _Outcome()
        with Meter(self.setting.progress, max(1, limits.images), f"{attack.name} on {plan.concept.id}"):
            try:
                # random numbers past the generator are the same for every model
                with torch.random.fork_rng(devices=[]), self._threads(plan):
                    torch.manual_seed(seed)
                    aim = plan.aim.model_copy(deep=True)
                    for find in attack.search(plan.params, target, aim, torch.Generator().manual_seed(seed)):
                        sound = target.typed(_sound(find, attack, plan.goal)).model_copy(update={"spent": target.spent})
                        outcome.finds = _best([*outcome.finds, sound], plan.params.finds or MOST_FINDS)
                outcome.stop = "found" if outcome.finds else "nothing"
            except BudgetSpent:
                outcome.stop = "budget"
            except CandidateRefused:
                outcome.stop = "refused"
            except AccessDeniedError:
                raise
            except Unmeasured as error:
                outcome.stop, outcome.problem = "crashed", str(error)
            except CRASHES as error:  # a plugin may raise anything; what it had found is kept
                outcome.stop, outcome.problem = "crashed", one_line(error)
        outcome.spent, outcome.tried, outcome.hits = target.spent, target.tried, target.hits
        outcome.input_hits = target.input_hits
        outcome.refused = max(len(target.refused), int(outcome.stop == "refused"))
        return outcome

    @contextmanager
    def _threads(self, plan: _SearchPlan) -> Iterator[None]:
        """Give a small model one thread: more of them cost more than they bring, and move the last bits."""
        import torch

        before = torch.get_num_threads()
        small = workers_for(plan.model.anatomy.latents.size, self.setting.device) > 1
        torch.set_num_threads(1 if small else before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _judged(self, plan: _SearchPlan, find: Find) -> tuple[JudgedFind, FindRow]:
        """Judge a find on its own model; a text of the hardened model on the base model too: it may mean something."""
        first, concept, count = self.gallery.sampling.seed, plan.concept, plan.params.images_per_find or 0
        if find.begin and find.tensors and not find.begin.fresh:
            count = min(count, find.tensors.shapes["latents"][0])
        seeds = [judge_seed(first, concept.id, i) for i in range(count)]
        base = self.models.base.bare if plan.name == "hardened" and find.kind == "text" else None
        row = judge_find(self.gallery, find, seeds, concept, plan.scorer, plan.model, base=base)
        return row.judged(concept.label, plan.name), row

    def _pictures(self, plan: _SearchPlan) -> dict[str, str]:
        """Return what names the pictures that a search looks at, and those that say what an input shows by itself."""
        count, studio = plan.attack.pictures(plan.params), self.gallery.studio
        found = {"pictures": studio.identity(plan.aim, count)} if count else {}
        if "input" in plan.attack.floors:
            kept = studio.prior(kept_prompts(self.gallery.scope, plan.goal), plan.goal)
            found["kept"] = studio.generated_identity(kept)
        return found

    def _key(self, plan: _SearchPlan) -> str:
        """Return a sha256 of all that a search depends on."""
        from publisher.evaluate.searching.inputs import VERSION as INPUTS

        sampling, setting = self.gallery.sampling, self.setting
        base = [self.models.base.digest] if Access.BASE in plan.attack.grants else []
        gone = [[one.name, *one.synonyms, one.label] for one in self.gallery.scope.concepts]
        return sha256_json(
            {
                "search": [VERSION, GENERATION, INPUTS],
                "attack": [plan.attack.name, plan.attack.version],
                "params": plan.params.model_dump(mode="json"),
                "concepts": [
                    one and one.model_dump(mode="json", exclude={"images"}) for one in (plan.aim, plan.goal, plan.kept)
                ],
                "seed_of": plan.concept.id,
                "gone": gone,
                "models": [plan.model.key, *base],
                "permuted": plan.permuted,
                **self._pictures(plan),
                "sampling": [sampling.seed, sampling.steps, sampling.guidance],
                "scorer": [identity(one) for one in self.gallery.tools.members(plan.scorer)],
                "machine": machine(setting, workers_for(plan.model.anatomy.latents.size, setting.device)),
            }
        )


def _best(finds: Sequence[Find], most: int) -> list[Find]:
    """Return the finds with the highest scores, the best last; of equal ones the latest, and none twice."""
    different: dict[str, Find] = {}
    for find in finds:
        same = find.model_dump_json(exclude={"score", "recipe", "token_ids", "typeable", "spent"})
        if same not in different or different[same].score <= find.score:
            different.pop(same, None)
            different[same] = find
    return sorted(different.values(), key=lambda one: one.score)[-most:]


def _sound(find: object, attack: SearchAttack[Any], concept: Concept) -> Find:
    """Return a find that may be kept.

    Raises:
        CandidateRefused: its words are such that nobody may generate them.
        TypeError: it is something else.
    """
    begun = isinstance(find, Find) and find.kind in ("image", "latent")
    if not isinstance(find, Find) or (find.kind != "text") != bool(find.tensors) or begun != bool(find.begin):
        raise TypeError(f"the attack {attack.name!r} yielded something else than a find")
    if any(is_refused_candidate(text, concept) for text in (*find.prompts, find.negative_prompt)):
        raise CandidateRefused
    return find
