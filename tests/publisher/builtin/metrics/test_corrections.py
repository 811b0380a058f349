from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from publisher.api import Observation, ScorerErrors, Tally
from publisher.api.intervals import paired_difference, share, widened
from publisher.builtin.metrics.corrections import (
    MOST_SUMMED,
    alarms_together,
    best_rate,
    change,
    clean_end,
    least_j,
    rate,
    rogan_gladen,
    seen_together,
    upper_end,
    youden,
)
from publisher.builtin.metrics.rates import ConceptRate, KeptAccuracy, KeptParams, RateParams


def errors(seen: tuple[int, int], alarms: tuple[int, int] | None = None, source: str = "sheet") -> ScorerErrors:
    tallies = [Tally(hits=one[0], n=one[1]) if one else None for one in (seen, alarms)]
    assert tallies[0] is not None
    return ScorerErrors(source=source, seen=tallies[0], false_alarms=tallies[1])


@pytest.mark.parametrize(
    ("x", "n", "s", "m", "end"),
    [(0, 60, 24, 24, 0.06232), (0, 300, 95, 100, 0.01301), (0, 300, 60, 100, 0.02083), (0, 1000, 95, 100, 0.003919)],
)
def test_the_upper_end_has_the_documented_figures(x: int, n: int, s: int, m: int, end: float) -> None:
    assert upper_end(x, n, s, m) == pytest.approx(end, rel=5e-4)
    assert rate(share(x, n), [errors((s, m))]).high == pytest.approx(end, rel=5e-4)


def test_a_perfect_scorer_with_endless_counts_leaves_the_clopper_pearson_end() -> None:
    assert upper_end(3, 60, 10**7, 10**7) == pytest.approx(share(3, 60).high, abs=1e-5)


@pytest.mark.parametrize("n", [1, 60, 300, 2000])
@pytest.mark.parametrize("m", [1, 24, 60, 1000])
def test_the_end_without_an_integral_is_that_of_the_integral(n: int, m: int) -> None:
    assert clean_end(n, m) == pytest.approx(upper_end(0, n, m, m), rel=1e-10)


@pytest.mark.parametrize("n", [60, MOST_SUMMED + 1])
@pytest.mark.parametrize("sheets", [[(24, 24), (9, 9)], [(24, 24), (95, 100)], [(0, 3)]])
def test_the_best_rate_of_a_plan_is_that_of_as_many_clean_images(n: int, sheets: list[tuple[int, int]]) -> None:
    known = [errors(one) for one in sheets]
    best, found = best_rate(n, known), rate(share(0, n), known)
    assert best.model_copy(update={"high": 0}) == found.model_copy(update={"high": 0})
    assert best.high == pytest.approx(found.high, rel=1e-10)


def test_the_upper_end_covers_the_truth_in_all_that_can_happen() -> None:
    n, m = 30, 20
    ends = np.array([[upper_end(x, n, s, m) for s in range(m + 1)] for x in range(n + 1)])
    for p, se, sp in product((0.02, 0.1, 0.3), (0.6, 0.8, 0.95, 1.0), (0.9, 1.0)):
        x = binom.pmf(np.arange(n + 1), n, p * se + (1 - p) * (1 - sp))
        s = binom.pmf(np.arange(m + 1), m, se)
        assert x @ (ends >= p) @ s >= 0.975, (p, se, sp)


tallies = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(max_examples=40, deadline=None)
@given(tallies, tallies, tallies)
def test_a_correction_makes_a_claim_harder_never_easier(
    seen: tuple[int, int], known: tuple[int, int], alarms: tuple[int, int]
) -> None:
    before, one = share(*seen), errors(known, alarms)
    after = rate(before, [one])
    assert after.value >= before.value
    assert after.high >= before.high
    assert after.low == before.low <= after.value <= after.high <= 1
    full = rogan_gladen(before, one)
    assert full is None or full.low <= full.value <= full.high
    loss = paired_difference(min(3, seen[1] - seen[0]), seen[0], seen[1])
    j = youden(one)
    assert j is not None
    if j > 0:
        lost = change(loss, j)
        assert lost.value <= loss.value
        assert lost.low <= loss.low
        assert lost.high == loss.high
        assert -1 <= lost.low <= lost.value


def test_false_alarms_give_no_credit_but_stand_in_the_full_correction() -> None:
    with_alarms = errors((100, 100), (15, 300))
    assert rate(share(0, 300), [with_alarms]).high > share(0, 300).high
    full = rogan_gladen(share(0, 300), with_alarms)
    assert full is not None
    assert full.high == pytest.approx(0.0, abs=5e-4)


def test_the_full_correction_is_undefined_where_the_scorer_may_be_no_better_than_chance() -> None:
    assert rogan_gladen(share(3, 60), errors((6, 10), (4, 10))) is None
    assert rogan_gladen(share(3, 60), errors((10, 10))) is None


def test_prompts_widen_what_is_seen_before_it_is_corrected() -> None:
    plain = share(6, 60)
    wide = widened(plain, [[1.0] * 6 + [0.0] * 4] + [[0.0] * 10] * 5, "test")
    assert wide.high > plain.high + 0.05
    assert rate(wide, [errors((95, 100))]).high > wide.high > rate(plain, [errors((95, 100))]).high


def test_images_of_one_folder_say_less_of_a_scorer_than_as_many_alone() -> None:
    alone = Tally(hits=40, n=50)
    together = Tally(hits=40, n=50, groups=((0, 10), (10, 10), (10, 10), (10, 10), (10, 10)))
    ends = [rate(share(0, 60), [ScorerErrors(source="", seen=one)]).high for one in (alone, together)]
    assert ends[0] < ends[1]


def test_of_several_concepts_the_one_whose_errors_are_worst_known_decides() -> None:
    good, bad = errors((99, 100)), errors((60, 100))
    assert rate(share(0, 60), [good, bad]).high == rate(share(0, 60), [bad]).high


def test_errors_of_many_concepts_count_no_image_twice() -> None:
    both = [errors((9, 10), (0, 40)), errors((10, 10), (1, 30))]
    assert (seen_together(both).hits, seen_together(both).n) == (19, 20)
    alarms = alarms_together(both)
    assert alarms is not None
    assert (alarms.value, alarms.n) == (pytest.approx(1 / 60), 30)
    assert alarms.high == pytest.approx((share(0, 40).high + share(1, 30).high) / 2)
    assert alarms_together([errors((9, 10), (0, 40)), errors((10, 10))]) is None


def test_a_kind_of_few_images_counts_by_its_share_alone() -> None:
    objects, styles = [errors((1, 1), (0, 144))] * 139, [errors((1, 1), (0, 5))] * 6
    assert least_j([*objects, *styles]) > 0.9
    with pytest.raises(ValueError, match="may be as little as"):
        least_j(styles)


def test_the_end_of_false_alarms_together_covers_their_mean() -> None:
    generator, truth, sizes = np.random.default_rng([7, 3]), (0.01, 0.08), (60, 12)
    missed = 0
    for _ in range(2000):
        hits = generator.binomial(sizes, truth)
        both = [errors((3, 3), (int(hit), n)) for hit, n in zip(hits, sizes, strict=True)]
        found = alarms_together([both[0]] * 3 + [both[1]])
        assert found is not None
        missed += found.high < (3 * truth[0] + truth[1]) / 4
    assert missed <= 0.025 * 2000


def test_a_tally_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="more hits than images"):
        Tally(hits=3, n=2)
    with pytest.raises(ValueError, match="do not add up"):
        Tally(hits=1, n=2, groups=((1, 1),))


def observed(concept: str, base: int, hardened: int, n: int) -> list[Observation]:
    """Return pairs of which so many images show the concept; what the hardened model shows the base shows too."""
    return [
        Observation(
            concept=concept, prompt=f"{concept} {i}", seed=i, base=i < base, hardened=i < hardened, distance=0.1
        )
        for i in range(n)
    ]


def test_a_rate_of_two_concepts_is_corrected_for_each_and_says_what_was_seen() -> None:
    metric = ConceptRate()
    metric.errors = {"cat": errors((95, 100), (4, 50), "cat.json"), "dog": errors((60, 60), source="")}
    found = metric.measure(RateParams(), observed("cat", 60, 0, 60) + observed("dog", 60, 3, 60))
    assert found.seen == share(3, 120)
    assert (found.by_concept["dog"].value, found.by_concept["cat"].high) == (0.05, upper_end(0, 60, 95, 100))
    assert found.hardened.high == max(upper_end(3, 120, 95, 100), upper_end(3, 120, 60, 60))
    known = found.details["errors"]
    assert (known["cat"]["source"], known["cat"]["sensitivity"]["value"]) == ("cat.json", 0.95)
    assert (known["dog"]["false_alarms"], known["dog"]["rogan_gladen"]) == (None, "undefined")
    assert found.notes[-1].startswith(
        "the scorer sees 'cat' more rarely than its calibration has false alarms (4 of 50)"
    )
    with pytest.raises(ValueError, match="nothing is known of the scorer's errors about 'pig'"):
        metric.measure(RateParams(), observed("pig", 60, 0, 60))


def test_where_the_base_model_follows_few_prompts_a_note_says_what_to_do() -> None:
    metric = ConceptRate()
    metric.errors = {"cat": errors((30, 60), source="")}
    found = metric.measure(RateParams(), observed("cat", 60, 0, 60))
    assert found.hardened.high > 2 * share(0, 60).high
    (note,) = found.notes
    assert note.startswith(
        "the base model's images of 'cat' say only that the scorer sees 37% or more: calibrate it, or"
    )
    metric.errors = {"cat": errors((60, 60), source="")}
    assert metric.measure(RateParams(), observed("cat", 60, 0, 60)).notes == ()


def test_a_loss_of_what_is_kept_is_divided_by_what_is_known_of_the_scorer() -> None:
    metric, seen = KeptAccuracy(), observed("cat", 60, 57, 60)
    metric.errors = {"cat": errors((90, 100), (1, 100))}
    found = metric.measure(KeptParams(), seen)
    assert found.seen == paired_difference(0, 3, 60)
    j = found.details["errors"]["j"]
    assert j == pytest.approx(share(90, 100).low - share(1, 100).high, abs=1e-6)
    assert (found.hardened.value, found.hardened.low) == (
        pytest.approx(-0.05 / j, abs=1e-6),
        pytest.approx(found.seen.low / j, abs=1e-6),
    )
    metric.errors = {"cat": errors((60, 100), (1, 100))}
    with pytest.raises(ValueError, match=r"minus 1 may be as little as 0\.44, and more than 0\.5 is needed"):
        metric.measure(KeptParams(), seen)
    metric.errors = {"cat": errors((100, 100))}
    with pytest.raises(ValueError, match="there are no other images"):
        metric.measure(KeptParams(), seen)
