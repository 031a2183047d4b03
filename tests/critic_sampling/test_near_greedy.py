"""Best-first search near the greedy program, with a model whose every choice is written down."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from pydantic import ValidationError

from coderl.critic_sampling.candidates import NoRound, Spend, Tools, Written
from coderl.critic_sampling.search import critic_sample, critic_sample_many
from coderl.critic_sampling.settings import CriticSamplingConfig
from coderl.types import Outcome, Problem, Program, ProgramKind, StdinTest, Verdict

GREEDY, BRANCHED, REPAIRED = ProgramKind.SAMPLE, ProgramKind.BRANCHED, ProgramKind.REPAIRED
PROBLEM = Problem("p", "d", example_tests=(StdinTest("1", "2"),))
END = 0
LONGEST = 3


@dataclass
class Letters:
    """Writes words of three letters: after each prefix the letters of `choices`, likeliest first, at their odds.

    A word passes if it is one of `right`, breaks the sandbox if it has a `!`.
    """

    choices: dict = field(default_factory=lambda: {"": "abc"})
    odds: tuple = (0.7, 0.2, 0.1)
    right: tuple = ()
    asked: list = field(default_factory=list)
    tested: list = field(default_factory=list)

    def write(self, requests):
        self.asked.append([self.text(r) for r in requests])
        return [self.written(r) for r in requests]

    @staticmethod
    def text(request):
        repairs = f"{request.failed[0].code}>" if request.failed else ""
        return repairs + bytes(request.prefix_tokens).decode()

    def written(self, request):
        word, letters, logs = bytes(request.prefix_tokens).decode(), [], []
        while len(word) < LONGEST:
            order = self.choices.get(word, "xyz")
            letters.append([ord(c) for c in order])
            logs.append(np.log(self.odds))
            word += order[0]
        shape = (len(letters), 3)
        program = Program(request.problem.problem_id, 0, word, tokens=tuple(word.encode()))
        return Written(program, np.array(letters, int).reshape(shape), np.array(logs).reshape(shape))

    def continue_prefixes(self, requests, *, seed):
        raise AssertionError("nothing is drawn at random")

    def decode(self, tokens):
        return bytes(tokens).decode()

    def run_tests(self, items):
        self.tested += [p.code for _, p in items]
        return [self.verdict(p.code) for _, p in items]

    def verdict(self, code):
        if "!" in code:
            return Verdict(None, fault="pipe closed")
        outcome = Outcome.PASSED_TEST if code in self.right else Outcome.FAILED_TEST
        return Verdict(outcome, test_outcomes=(outcome,))


def config(**settings):
    branch = {name: settings.pop(name) for name in list(settings) if name not in CriticSamplingConfig.model_fields}
    return CriticSamplingConfig(start="near_greedy", branch=branch, **settings)


def search(model, problem=PROBLEM, repairs=None, **settings):
    tools = Tools(model, None, None, model.run_tests, model, repairs)
    return critic_sample(problem, [], tools, config=config(**settings), seed=0)


def words(result):
    return [c.program.code for c in result.candidates]


def test_the_likeliest_exchange_comes_first_and_its_program_is_branched_too():
    """axx has branches b (1/3.5), c (1/7), ay, az, axy, axz at the same odds: the second likeliest first, in order."""
    model = Letters()
    result = search(model, max_branches=4, growth=1)
    assert words(result) == ["axx", "bxx", "ayx", "axy", "cxx"]
    assert [c.program.kind for c in result.candidates] == [GREEDY, *[BRANCHED] * 4]
    assert [(c.parent, c.num_prefix_tokens) for c in result.candidates[1:]] == [(0, 0), (0, 1), (0, 2), (0, 0)]
    assert [c.fork.score for c in result.candidates[1:]] == pytest.approx(np.log([2 / 7, 2 / 7, 2 / 7, 1 / 7]))
    fork = result.candidates[2].fork
    assert (fork.rank, fork.line, fork.forced, fork.replaced) == (1, 1, "y", "x")


def test_a_branch_of_a_branch_adds_up_its_log_ratios():
    """With odds 0.5, 0.4, 0.1, two exchanges for second choices (0.64) go before one for a third (0.2)."""
    result = search(Letters(odds=(0.5, 0.4, 0.1)), max_branches=7, growth=1)
    assert words(result) == ["axx", "bxx", "ayx", "axy", "byx", "bxy", "ayy", "byy"]
    assert [c.parent for c in result.candidates[4:]] == [1, 1, 2, 4]
    assert result.candidates[4].fork.score == pytest.approx(2 * np.log(0.8))


def test_the_search_stops_with_the_round_in_which_a_program_passes():
    model = Letters(right=("axy",))
    result = search(model)
    assert words(result) == ["axx", "bxx", "ayx", "axy"]  # rounds of 1 and 2 branches
    assert [p.code for p in result.programs] == ["axy"]
    everything = search(Letters(right=("axy",)), stops_at_pass=False, max_branches=7)
    assert len(everything.candidates) == 8
    assert [p.code for p in search(Letters(right=("axy",)), keep="all").programs] == words(result)


@pytest.mark.parametrize(
    ("options", "problem", "reason"),
    [
        ({"right": ("axx",)}, PROBLEM, NoRound.NO_NEED),
        ({"odds": (1 - 2e-6, 1e-6, 1e-6)}, PROBLEM, NoRound.NO_BRANCH),
        ({}, Problem("q", "no examples"), NoRound.NO_EXAMPLE_TESTS),
        ({"choices": {"": "!bc"}}, PROBLEM, None),
    ],
)
def test_why_a_search_ends_with_the_greedy_program(options, problem, reason):
    """One the sandbox fails on is branched: nobody knows that it is right."""
    result = search(Letters(**options), problem=problem)
    assert result.no_round is reason
    assert (len(result.candidates) == 1) == (reason is not None)
    assert len(result.programs) == 1


def test_rounds_grow_and_the_last_is_cut_to_what_is_left():
    """Greedy, then 2, 2 x 1.5 = 3, 4 (of 4.5), and 1 of 6 to make 10 branches."""
    model = Letters()
    search(model, num_branches=2, growth=1.5, max_branches=10)
    assert [len(asked) for asked in model.asked] == [1, 2, 3, 4, 1]


def test_a_budget_counts_each_forced_and_each_drawn_token():
    """axx 3, bxx 3 (forced b, drawn xx), ayx 2, axy 1: 9 tokens; of 8 the last has no room, and 6 end with bxx."""
    whole = search(Letters(), max_branches=3, growth=1)
    assert whole.spend == Spend(9, 4, 4, 0)
    assert [c.num_tokens_so_far for c in whole.candidates] == [3, 6, 8, 9]
    assert words(search(Letters(), max_sampled_tokens=8, growth=1)) == words(whole)[:3]
    cut = search(Letters(), max_sampled_tokens=7, growth=1)
    assert words(cut) == words(whole)[:2]
    assert cut.spend.num_sampled_tokens == 7  # the program that the budget ended in counts
    assert search(Letters(), max_executed_tests=2, growth=1).spend.num_executed_tests == 2


def test_what_a_smaller_budget_finds_is_the_beginning_of_what_a_larger_does():
    many = words(search(Letters(), max_sampled_tokens=40))
    for budget in (3, 5, 11, 26):
        few = words(search(Letters(), max_sampled_tokens=budget))
        assert few == many[: len(few)]


def test_repairs_are_written_when_no_branch_is_left_and_have_branches_too():
    """The actor is sure (its second token is below the floor); the repair model writes rxx, then branches it."""
    actor = Letters(odds=(1 - 2e-6, 1e-6, 1e-6))
    repairs = Letters(choices={"": "rst"}, right=("ryx",))
    tools = Tools(actor, None, None, lambda items: [repairs.verdict(p.code) for _, p in items], actor, repairs)
    result = critic_sample(PROBLEM, [], tools, config=config(growth=1), seed=0)
    assert repairs.asked == [["axx>"], ["axx>s"], ["axx>ry"]]
    assert [(c.program.code, c.program.kind, c.parent) for c in result.candidates] == [
        ("axx", GREEDY, None),
        ("rxx", REPAIRED, 0),
        ("sxx", BRANCHED, 1),
        ("ryx", BRANCHED, 1),
    ]
    without = search(Letters(odds=(1 - 2e-6, 1e-6, 1e-6)), num_repair_rounds=0, repairs=repairs)
    assert words(without) == ["axx"]


def test_a_repair_can_stand_among_the_branches_at_a_score():
    """At log 0.25 the repair of axx comes after the three second choices (2/7) and before the third ones (1/7)."""
    repairs = Letters(choices={"": "rst"})
    result = search(Letters(), repairs=repairs, repair_score=float(np.log(0.25)), max_branches=4, growth=1)
    assert words(result) == ["axx", "bxx", "ayx", "axy", "rxx"]


def test_many_problems_share_the_calls_and_come_out_as_if_alone():
    other = Problem("q", "d", example_tests=PROBLEM.example_tests)
    model = Letters(right=("bxx",))
    tools = Tools(model, None, None, model.run_tests, model)
    both = critic_sample_many([PROBLEM, other], [[], []], tools, config=config(), seed=0)
    assert model.asked == [["", ""], ["b", "b"]]
    assert [words(r) for r in both] == [["axx", "bxx"]] * 2
    assert both[0] == search(Letters(right=("bxx",)))


def test_a_search_that_would_never_end_is_refused():
    with pytest.raises(ValidationError, match=r"needs branch\.max_branches or max_sampled_tokens"):
        config(max_branches=None)
    with pytest.raises(ValueError, match=r"needs Tools\.writer"):
        critic_sample(PROBLEM, [], Tools(Letters(), None, None, Letters().run_tests), config=config(), seed=0)
