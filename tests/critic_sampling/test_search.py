"""Algorithm 1 with hand-made models: every branch, every budget, and what happens when things break."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coderl.critic_sampling.candidates import (
    NOT_IN_TABLES,
    Candidate,
    NoRound,
    SearchResult,
    Spend,
    Tools,
)
from coderl.critic_sampling.search import critic_sample, critic_sample_many
from coderl.critic_sampling.settings import CriticSamplingConfig
from coderl.tables import read_table, write_table
from coderl.types import (
    LabelledProblem,
    Outcome,
    Problem,
    Program,
    ProgramKind,
    Score,
    StdinTest,
    Verdict,
)

SAMPLE, REFINED, REPAIRED = ProgramKind.SAMPLE, ProgramKind.REFINED, ProgramKind.REPAIRED
PROBLEM = Problem("p", "add", example_tests=(StdinTest("1", "2"),))
UNSEEN = Problem("q", "no examples")


def program(code, problem_id="p"):
    """A program whose tokens are the letters of its text and an end of sequence, 0."""
    return Program(problem_id, 0, code, tokens=(*code.encode(), 0))


@dataclass
class FakeModels:
    """Actor, repair model, critic and sandbox in one, on programs that are short words.

    A program passes the examples if it has a `p`, crashes if it has an `x`, breaks the sandbox if it has a `!`.
    The critic's p(Passed) after a letter: p 0.9, digits d/10, all else 0.6; of the program: its last letter's.
    """

    continuations: list = field(default_factory=lambda: ["p"])
    repairs: list = field(default_factory=lambda: ["fixp"])
    prefix_requests: list = field(default_factory=list)
    repair_requests: list = field(default_factory=list)
    seeds: list = field(default_factory=list)
    tested: list = field(default_factory=list)
    scored: list = field(default_factory=list)

    def continue_prefixes(self, requests, *, seed):
        self.prefix_requests.append([(r.problem.problem_id, bytes(r.prefix_tokens), r.num_samples) for r in requests])
        self.seeds.append(seed)
        return [
            [
                program(
                    bytes(r.prefix_tokens).decode() + self.continuations[i % len(self.continuations)],
                    r.problem.problem_id,
                )
                for i in range(r.num_samples)
            ]
            for r in requests
        ]

    def repair(self, requests, *, seed):
        self.repair_requests.append([(r.program.code, r.result.outcome, r.num_samples) for r in requests])
        self.seeds.append(seed)
        return [
            [program(self.repairs[i % len(self.repairs)], r.problem.problem_id) for i in range(r.num_samples)]
            for r in requests
        ]

    def score(self, items):
        self.scored.append([p.code for _, p in items])
        return [score_of(p.code) for _, p in items]

    def run_tests(self, items):
        self.tested.append([p.code for _, p in items])
        return [self.verdict(p.code) for _, p in items]

    @staticmethod
    def verdict(code):
        if "!" in code:
            return Verdict(None, fault="pipe closed")
        if "x" in code:
            return Verdict(Outcome.RUNTIME_ERROR, "zerodivisionerror", "ZeroDivisionError", 1, (Outcome.RUNTIME_ERROR,))
        outcome = Outcome.PASSED_TEST if "p" in code else Outcome.FAILED_TEST
        return Verdict(outcome, test_outcomes=(outcome,))


def score_of(code):
    passed = [{"p": 0.9}.get(c, int(c) / 10 if c.isdigit() else 0.6) for c in code]
    rows = tuple((1 - v, v) for v in [*passed, passed[-1]])
    return Score(rows[-1], rows)


def search(codes, models, problem=PROBLEM, repairer=True, critic=True, **config):
    return critic_sample(
        problem,
        [program(code, problem.problem_id) for code in codes],
        Tools(models, models if critic else None, models if repairer else None, models.run_tests),
        config=CriticSamplingConfig(**config),
        seed=0,
    )


def codes(result):
    return [p.code for p in result.programs]


def test_a_passing_program_is_refined_from_its_best_prefix():
    """abpc: the best prefix is abp (0.9 after p), nothing in it is failing, so N=2 programs begin with abp."""
    models = FakeModels(continuations=["1", "2"])
    result = search(["abpc", "zz"], models)
    assert models.prefix_requests == [[("p", b"abp", 2)]]
    assert codes(result) == ["abp1", "abp2"]
    assert [(c.program.kind, c.parent, c.num_prefix_tokens, c.round) for c in result.candidates] == [
        (SAMPLE, None, 0, 0),
        (SAMPLE, None, 0, 0),
        (REFINED, 0, 3, 1),
        (REFINED, 0, 3, 1),
    ]
    assert [c.program.index for c in result.candidates] == [0, 1, 2, 3]
    assert not models.repair_requests
    assert result.no_round is None


def test_the_prefix_is_cut_before_the_first_token_after_which_failing_is_likelier():
    """ab3cp: the best is p, but after 3 p(Passed)=0.3, so 3 and all to its right go."""
    models = FakeModels()
    search(["ab3cp"], models)
    assert models.prefix_requests == [[("p", b"ab", 1)]]


def test_an_empty_prefix_means_to_draw_the_program_anew():
    """2p: failing is likelier from the first token on."""
    models = FakeModels()
    result = search(["2p"], models)
    assert models.prefix_requests == [[("p", b"", 1)]]
    assert codes(result) == ["p"]
    assert result.candidates[1].num_prefix_tokens == 0


def test_the_end_of_a_program_is_never_part_of_a_prefix():
    """abp ends in p and then the end of sequence, both valued 0.9: the prefix is abp, which leaves a token to draw."""
    models = FakeModels()
    search(["abp"], models)
    assert models.prefix_requests == [[("p", b"abp", 1)]]


def test_a_budget_over_several_passing_programs_gives_the_remainder_to_the_critics_favourite():
    """N=5 over three passers valued 0.6 (apa), 0.9 (app), 0.7 (ap7): 2 for app, 2 for ap7, 1 for apa."""
    models = FakeModels()
    search(["apa", "app", "ap7"], models, num_samples=5)
    assert models.prefix_requests == [[("p", b"ap", 2), ("p", b"ap", 2), ("p", b"ap", 1)]]


def test_more_passing_programs_than_budget_leaves_the_last_out():
    """N=2 over three passers: the least valued gets nothing."""
    models = FakeModels()
    result = search(["ap1", "app", "apa"], models, num_samples=2)
    assert [num for _, _, num in models.prefix_requests[0]] == [1, 1]
    assert [c.parent for c in result.candidates[3:]] == [1, 2]


def test_when_all_programs_pass_all_are_refined():
    models = FakeModels()
    search(["ap", "bp", "cp"], models)
    assert models.prefix_requests == [[("p", b"ap", 1), ("p", b"bp", 1), ("p", b"cp", 1)]]


def test_copies_of_a_passing_program_count_once_and_are_tested_once():
    """Three copies of ap make one parent of all N=3; the copies returned are counted: ap, ap, ap are two copies."""
    models = FakeModels(continuations=[""])
    result = search(["ap", "ap", "ap"], models)
    assert models.prefix_requests == [[("p", b"ap", 3)]]
    assert models.tested == [["ap"]]
    assert result.num_copies == 2


def test_where_none_passes_the_best_failing_program_is_repaired_and_the_repair_refined():
    """M=1: b9 is valued 0.9, so both repairs are of b9; both pass (one text), and that is refined."""
    models = FakeModels(repairs=["rp"], continuations=["."])
    result = search(["b3", "b9"], models)
    assert models.repair_requests == [[("b9", Outcome.FAILED_TEST, 2)]]
    assert models.prefix_requests == [[("p", b"rp", 2)]]
    assert [(c.program.kind, c.parent, c.round) for c in result.candidates[2:]] == [
        (REPAIRED, 1, 1),
        (REPAIRED, 1, 1),
        (REFINED, 2, 2),
        (REFINED, 2, 2),
    ]
    assert codes(result) == ["rp.", "rp."]


def test_where_repairs_fail_too_the_repaired_programs_are_returned():
    models = FakeModels(repairs=["r1", "r2"])
    result = search(["b3", "b9"], models)
    assert codes(result) == ["r1", "r2"]
    assert not models.prefix_requests
    assert result.no_round is None


def test_a_repair_budget_is_shared_by_the_best_m():
    """N=5, M=2, values 0.3, 0.9, 0.5: three repairs of b9, two of b5."""
    models = FakeModels(repairs=["r"])
    search(["b3", "b9", "b5"], models, num_samples=5, num_repair_candidates=2)
    assert models.repair_requests == [[("b9", Outcome.FAILED_TEST, 3), ("b5", Outcome.FAILED_TEST, 2)]]


def test_m_larger_than_the_failing_programs_repairs_them_all():
    models = FakeModels(repairs=["r"])
    search(["b3", "b9", "b9"], models, num_samples=3, num_repair_candidates=9)
    assert models.repair_requests == [[("b9", Outcome.FAILED_TEST, 2), ("b3", Outcome.FAILED_TEST, 1)]]


def test_repair_rounds_go_on_until_some_program_passes():
    """Two rounds allowed: the second repairs the first's best repair, r8."""
    models = FakeModels(repairs=["r8"])
    search(["b3"], models, num_repair_rounds=2, num_refine_rounds=0)
    assert [r[0][0] for r in models.repair_requests] == ["b3", "r8"]
    models = FakeModels(repairs=["rp"])
    search(["b3"], models, num_repair_rounds=2, num_refine_rounds=0)
    assert len(models.repair_requests) == 1


def test_refine_rounds_work_on_the_last_round_and_end_when_it_has_no_passing_program():
    """ap is cut to ap, then continued by x: apx has p and x, crashes, and ends the rounds."""
    models = FakeModels(continuations=["x"])
    result = search(["ap"], models, num_refine_rounds=3)
    assert len(models.prefix_requests) == 1
    assert codes(result) == ["apx"]
    models = FakeModels(continuations=["1"])
    search(["ap"], models, num_refine_rounds=3)
    assert [r[0][1] for r in models.prefix_requests] == [b"ap", b"ap", b"ap"]


def test_a_program_that_crashes_on_the_examples_is_repaired_with_its_error():
    models = FakeModels(repairs=["r"])
    search(["x"], models)
    assert models.repair_requests == [[("x", Outcome.RUNTIME_ERROR, 1)]]


def test_a_program_the_sandbox_fails_on_is_neither_repaired_nor_refined_and_is_counted():
    """p! would pass; nobody knows. Only b3 is repaired, with the whole budget of N=3."""
    models = FakeModels(repairs=["r", "r!", "r"])
    result = search(["p!", "b3", "p!"], models)
    assert models.repair_requests == [[("b3", Outcome.FAILED_TEST, 3)]]
    assert result.num_masked == 3
    assert [c.result is None for c in result.candidates] == [True, False, True, False, True, False]


@pytest.mark.parametrize(
    ("given", "problem", "options", "reason"),
    [
        (["ap"], UNSEEN, {}, NoRound.NO_EXAMPLE_TESTS),
        ([], PROBLEM, {"num_samples": 2}, NoRound.NO_PROGRAMS),
        (["!", "!!"], PROBLEM, {}, NoRound.NO_VERDICTS),
        (["b"], PROBLEM, {"repairer": False}, NoRound.NO_REPAIR),
        (["b"], PROBLEM, {"num_repair_rounds": 0}, NoRound.NO_REPAIR),
        (["p"], PROBLEM, {"num_refine_rounds": 0}, NoRound.NO_REFINE),
    ],
)
def test_where_no_round_is_possible_the_reason_is_recorded_and_the_first_round_returned(
    given, problem, options, reason
):
    models = FakeModels()
    result = search(given, models, problem=problem, **options)
    assert result.no_round is reason
    assert codes(result) == given
    assert not models.prefix_requests
    more = search(given, models, problem=problem, fallback="sample_more", **options)
    assert more.no_round is reason
    assert codes(more) == [*given, *["p"] * (options.get("num_samples") or len(given))]
    assert {c.program.kind for c in more.candidates} == {SAMPLE}


def test_the_example_tests_are_not_run_where_there_are_none():
    models = FakeModels()
    search(["ap"], models, problem=UNSEEN, fallback="sample_more")
    assert models.tested == []


def test_nothing_is_drawn_for_a_problem_with_no_programs_and_no_budget():
    assert search([], FakeModels(), fallback="sample_more").candidates == ()


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("last_round", ["ap1", "ap2"]), ("passing", ["ap", "ap1", "ap2"]), ("all", ["ap", "b", "ap1", "ap2"])],
)
def test_what_is_kept_beside_the_last_round(keep, expected):
    models = FakeModels(continuations=["1", "2"])
    assert codes(search(["ap", "b"], models, keep=keep)) == expected


def test_the_spend_counts_drawn_tokens_and_distinct_programs():
    """Given: ap and ap, 3 tokens each with the end. Refined from ap: ap1 and ap1, 4 tokens of which 2 are kept.

    Drawn 3+3+2+2 = 10; run ap and ap1, one test each; scored ap (to refine), then ap1 twice (to rank).
    """
    result = search(["ap", "ap"], FakeModels(continuations=["1"]))
    assert result.spend == Spend(10, 2, 2, 3)
    assert result.spend + Spend(1, 1, 1, 1) == Spend(11, 3, 3, 4)


def test_without_a_critic_one_token_is_kept_and_failing_programs_are_repaired_in_order():
    """All values even: the first of the best prefixes is one token, and the first failing program is repaired."""
    models = FakeModels(repairs=["r"])
    search(["abp", "zz"], models, critic=False)
    assert models.prefix_requests == [[("p", b"a", 2)]]
    search(["b3", "b9"], models, critic=False)
    assert models.repair_requests == [[("b3", Outcome.FAILED_TEST, 2)]]
    assert models.scored == []


def test_a_program_that_did_not_come_from_a_model_is_not_scored_and_refined_from_the_start():
    """It has no tokens, so no prefix and no value; what is drawn from it has."""
    models = FakeModels()
    result = critic_sample(
        PROBLEM,
        [Program("p", 0, "typed by a person")],
        Tools(models, models, None, models.run_tests),
        config=CriticSamplingConfig(),
        seed=0,
    )
    assert models.prefix_requests == [[("p", b"", 1)]]
    assert models.scored == [["p"]]
    assert [c.program_value for c in result.candidates] == [None, pytest.approx(0.9)]


def test_the_controls_ignore_the_critic():
    """`empty` keeps nothing; `random` keeps each proper prefix sometimes, and no other."""
    models = FakeModels()
    search(["abp"], models, prefix="empty")
    assert models.prefix_requests == [[("p", b"", 1)]]
    kept = set()
    for number in range(60):
        models = FakeModels()
        problem = Problem(str(number), "d", example_tests=PROBLEM.example_tests)
        search(["abp"], models, problem=problem, prefix="random")
        kept.add(models.prefix_requests[0][0][1])
    assert kept == {b"", b"a", b"ab", b"abp"}
    repaired = set()
    for number in range(20):
        models = FakeModels(repairs=["r"])
        problem = Problem(str(number), "d", example_tests=PROBLEM.example_tests)
        search(["b3", "b9"], models, problem=problem, repair_order="random")
        repaired.add(models.repair_requests[0][0][0])
    assert repaired == {"b3", "b9"}


def test_programs_are_handed_in_best_first():
    """Refined abp1 is valued 0.1, abp8 0.8; abpx crashes and comes last."""
    models = FakeModels(continuations=["x", "1", "8"])
    result = search(["abp", "b", "b"], models)
    assert [p.code for p in result.ranked()] == ["abp8", "abp1", "abpx"]


def test_many_problems_share_one_call_of_each_model_and_come_out_as_if_alone():
    """One passes, one fails, one has no examples: one repair call, one refine call, the same results as one by one."""
    other = Problem("r", "d", example_tests=PROBLEM.example_tests)
    problems = [PROBLEM, other, UNSEEN]
    given = [[program("ap")], [program("b", "r")], [program("c", "q")]]
    models = FakeModels(repairs=["rp"], continuations=["1"])
    results = critic_sample_many(
        problems,
        given,
        Tools(models, models, models, models.run_tests),
        config=CriticSamplingConfig(),
        seed=0,
    )
    assert len(models.repair_requests) == 1
    assert models.prefix_requests == [[("p", b"ap", 1), ("r", b"rp", 1)]]
    alone = [search([g.code for g in some], models, problem=p) for p, some in zip(problems, given, strict=True)]
    assert results == alone


def test_each_round_has_its_own_seed_and_the_same_search_the_same_seeds():
    def seeds():
        models = FakeModels(repairs=["rp"], continuations=["1"])
        search(["b"], models, num_refine_rounds=2)
        return models.seeds

    assert len(set(seeds())) == 3
    assert seeds() == seeds()


def test_a_problem_with_hidden_tests_cannot_be_searched():
    """A type error, not a convention: generators never hold what grades them."""
    models = FakeModels()
    with pytest.raises(TypeError):
        critic_sample(
            LabelledProblem(PROBLEM, PROBLEM.example_tests),
            [program("ap")],
            Tools(models, models, models, models.run_tests),
            config=CriticSamplingConfig(),
            seed=0,
        )


def test_candidates_survive_a_table(tmp_path):
    """What is written is what is read: kinds, parents, outcomes and missing values."""
    result = search(["abpc", "!"], FakeModels(), keep="all")
    write_table(tmp_path / "candidates.parquet", result.candidates, Candidate, without=NOT_IN_TABLES)
    read = list(read_table(tmp_path / "candidates.parquet", Candidate, without=NOT_IN_TABLES))
    assert read == list(result.candidates)
    assert [(c.program.kind, c.parent, c.result and c.result.outcome, c.is_returned) for c in read[:3]] == [
        (SAMPLE, None, Outcome.PASSED_TEST, True),
        (SAMPLE, None, None, True),
        (REFINED, 0, Outcome.PASSED_TEST, True),
    ]


def test_an_unknown_setting_is_refused():
    with pytest.raises(ValueError, match="num_sample\n"):
        CriticSamplingConfig(num_sample=3)


# ------------------------------------------------------------------------------------------ budgets, added up by hand


def costs(result):
    return [(c.program.code, c.num_tokens_so_far, c.num_tests_so_far) for c in result.candidates]


def test_each_candidate_knows_what_the_search_had_cost_by_then():
    """apc and b take 4 and 2 tokens with their ends, and a test each; ap1 and ap2 are 4 tokens of which 2 are kept."""
    result = search(["apc", "b"], FakeModels(continuations=["1", "2"]))
    assert costs(result) == [("apc", 4, 1), ("b", 6, 2), ("ap1", 8, 3), ("ap2", 10, 4)]
    assert result.spend == Spend(10, 4, 4, 3)


def test_a_copy_costs_its_tokens_and_no_test():
    result = search(["apc", "apc", "b"], FakeModels(), num_refine_rounds=0)
    assert costs(result) == [("apc", 4, 1), ("apc", 8, 1), ("b", 10, 2)]


@pytest.mark.parametrize(
    ("budget", "expected", "spent"),
    [
        (10, ["apc", "b", "ap1", "ap2"], 10),
        (9, ["apc", "b", "ap1"], 9),  # one token of ap2 was drawn, and it is no program
        (8, ["apc", "b", "ap1"], 8),
        (7, ["apc", "b"], 7),
        (6, ["apc", "b"], 6),
        (5, ["apc"], 5),
        (3, [], 3),
    ],
)
def test_a_budget_of_tokens_ends_with_the_last_program_that_fits(budget, expected, spent):
    models = FakeModels(continuations=["1", "2"])
    result = search(["apc", "b"], models, keep="all", max_sampled_tokens=budget)
    assert (codes(result), result.spend.num_sampled_tokens) == (expected, spent)
    assert len(models.prefix_requests) == (1 if budget > 6 else 0)


def test_the_last_round_is_the_last_of_which_the_budget_holds_a_program():
    """7 tokens: the first round takes 6, and the refined ap1 would need 2 more."""
    result = search(["apc", "b"], FakeModels(continuations=["1", "2"]), max_sampled_tokens=7)
    assert codes(result) == ["apc", "b"]
    assert result.no_round is NoRound.NO_BUDGET
    partial = search(["apc", "b"], FakeModels(continuations=["1", "2"]), max_sampled_tokens=9)
    assert codes(partial) == ["ap1"]
    assert partial.no_round is None


@pytest.mark.parametrize(("budget", "verdicts", "spent"), [(3, 3, 3), (2, 2, 2), (1, 1, 1)])
def test_a_budget_of_tests_leaves_what_is_beyond_it_without_a_verdict(budget, verdicts, spent):
    """Three programs that fail at their only test, and no repair."""
    result = search(["b", "c", "d"], FakeModels(), num_repair_rounds=0, max_executed_tests=budget)
    assert sum(c.result is not None for c in result.candidates) == verdicts
    assert result.spend.num_executed_tests == spent


def test_a_program_whose_tests_the_budget_ends_in_has_no_verdict():
    """Two tests a program and a budget of three: the second program's second test is not run."""

    class TwoTests(FakeModels):
        def run_tests(self, items):
            results = super().run_tests(items)
            return [type(r)(r.outcome, test_outcomes=(r.outcome, r.outcome)) for r in results]

    two = Problem("p", "add", example_tests=(StdinTest("1", "2"), StdinTest("2", "3")))
    result = search(["ap", "bp"], TwoTests(), problem=two, max_executed_tests=3)
    assert [c.result is not None for c in result.candidates] == [True, False]
    assert result.spend == Spend(6, 2, 3, 2)
    assert result.no_round is NoRound.NO_BUDGET


def test_a_spent_budget_of_tests_ends_the_rounds():
    """ap passes by the only test there is; nothing is refined, for nothing refined could be judged."""
    models = FakeModels()
    result = search(["ap"], models, max_executed_tests=1)
    assert not models.prefix_requests
    assert result.no_round is NoRound.NO_BUDGET


def test_where_no_round_is_possible_the_fallback_spends_all_the_tokens():
    """3 tokens given, p and its end 2 a program, N=1: ten tokens hold three more, and the tenth is lost."""
    models = FakeModels()
    result = search(["ap"], models, problem=UNSEEN, fallback="sample_more", max_sampled_tokens=10)
    assert codes(result) == ["ap", "p", "p", "p"]
    assert result.spend.num_sampled_tokens == 10
    assert len(set(models.seeds)) == len(models.seeds) == 4


def test_a_row_of_the_table_says_what_became_of_the_search(tmp_path):
    result = search(["apc", "b"], FakeModels(continuations=["1", "2"]), max_sampled_tokens=7)
    write_table(tmp_path / "searches.parquet", [result], SearchResult, without=NOT_IN_TABLES)
    (row,) = read_table(tmp_path / "searches.parquet", SearchResult, without=NOT_IN_TABLES)
    assert row == SearchResult("p", NoRound.NO_BUDGET, 0, 0, Spend(7, 2, 2, 2))


words = st.lists(st.text("abcp3!x", min_size=1, max_size=4), min_size=1, max_size=4)


@given(words, words, words, st.integers(1, 40), st.integers(0, 40))
def test_a_smaller_budget_gives_the_first_candidates_of_a_larger(given_codes, continued, repaired, budget, more):
    """And no budget is ever overspent, and the costs so far never fall."""

    def found(most):
        models = FakeModels(continuations=continued, repairs=repaired)
        return search(given_codes, models, num_refine_rounds=2, keep="all", max_sampled_tokens=most)

    small, large = found(budget), found(budget + more)
    assert codes(large)[: len(small.candidates)] == codes(small)
    assert small.spend.num_sampled_tokens <= budget
    for result in (small, large):
        drawn = [len(c.program.tokens) - c.num_prefix_tokens for c in result.candidates]
        assert [c.num_tokens_so_far for c in result.candidates] == [sum(drawn[: i + 1]) for i in range(len(drawn))]
        assert all(a.num_tests_so_far <= b.num_tests_so_far for a, b in pairwise(result.candidates))
