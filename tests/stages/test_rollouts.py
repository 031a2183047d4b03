"""What is made of rollouts: canaries, token lines, spreads, parts of the problems, repair pairs."""

import pytest

from coderl import tables
from coderl.models.tiny import tiny_t5, train_tokenizer
from coderl.rl.canaries import sample_canaries
from coderl.rl.rollout import actor_examples, token_lines
from coderl.rl.settings import ReturnsConfig
from coderl.stages import rollouts
from coderl.stages.train_critic import held_out_part
from coderl.stages.train_repair import failed_pairs
from coderl.types import (
    InputError,
    LabelledProblem,
    Outcome,
    Problem,
    Program,
    ProgramKind,
    Rollout,
    Score,
    Verdict,
)

SOURCE = "a = 1\nb = a / 0\nprint(b)\n"


@pytest.fixture(scope="module")
def model():
    tokenizer = train_tokenizer([SOURCE, "print(int(input()) + 1)\n"], 400)
    return tiny_t5(tokenizer, d_model=16, num_layers=1, num_heads=2)


def program(model, text, code=None, index=0):
    return Program("p", index, text if code is None else code, tokens=tuple(model.encode_program(text)))


def rollout(of, outcome, error_line=None, score=None):
    return Rollout(of, Verdict(outcome, "zerodivisionerror", "", error_line), score)


def test_each_token_is_on_the_line_it_spells(model):
    """The tokens of each line, decoded, are that line; a line end belongs to the line it opens, or to no line."""
    one = program(model, SOURCE)
    lines = token_lines(model, one)
    assert len(lines) == len(one.tokens)
    for number, text in enumerate(SOURCE.splitlines(), start=1):
        spelt = model.decode([t for t, line in zip(one.tokens, lines, strict=True) if line == number])
        assert spelt.strip() == text


@pytest.mark.parametrize(
    ("text", "code", "shift"),
    [("\n\n" + SOURCE, SOURCE, -2), (SOURCE, "def f(a):\n" + SOURCE, 1), (SOURCE, "\n" + SOURCE, 1)],
)
def test_lines_count_in_the_program_that_was_run(model, text, code, shift):
    """Text before the code is left out, a starter or a blank line before it is counted in."""
    plain = token_lines(model, program(model, text))
    assert token_lines(model, program(model, text, code)) == [line + shift for line in plain]


def test_the_error_line_spread_reaches_the_token_returns(model):
    """Of a program that fails on line 2, only that line's tokens carry A = -0.6; of one that passes, all carry 1."""
    bad, good = program(model, SOURCE), program(model, "print(1)\n", index=1)
    group = [rollout(bad, Outcome.RUNTIME_ERROR, 2), rollout(good, Outcome.PASSED_TEST)]
    found = actor_examples(group, model, {"p": (10,)}, ReturnsConfig(baseline="none", spread="error_line"))
    lines = token_lines(model, bad)
    assert 2 in lines
    assert found[0].token_returns == tuple(-0.6 * (line == 2) for line in lines)
    assert found[1].token_returns == (1.0,) * len(good.tokens)


def test_a_failure_without_a_known_line_is_spread_evenly(model):
    bad = program(model, SOURCE)
    group = [rollout(bad, Outcome.FAILED_TEST)]
    (found,) = actor_examples(group, model, {"p": (10,)}, ReturnsConfig(baseline="none", spread="error_line"))
    assert found.token_returns == (-0.3,) * len(bad.tokens)


def test_canaries_by_hand():
    """Four samples: one passes, two do not compile, two of one problem are alike; the baseline does not count."""
    programs = [Program("a", i, code, tokens=(1,) * n) for i, (code, n) in enumerate([("x", 2), ("x", 2), ("y", 4)])]
    programs += [Program("b", 0, "x", tokens=(1,) * 8), Program("b", 0, "x", ProgramKind.BASELINE, (1,))]
    outcomes = [Outcome.COMPILE_ERROR, Outcome.COMPILE_ERROR, Outcome.PASSED_TEST, Outcome.FAILED_TEST]
    found = sample_canaries(rollout(p, u) for p, u in zip(programs, [*outcomes, Outcome.PASSED_TEST], strict=True))
    assert found == {"pass_rate": 0.25, "compile_error_rate": 0.5, "unique_share": 0.75, "mean_tokens": 4.0}


def test_held_out_parts_are_disjoint_and_of_the_asked_size():
    parts = [held_out_part(f"problem-{i}", 0.4) for i in range(2000)]
    assert parts == [held_out_part(f"problem-{i}", 0.4) for i in range(2000)]
    for part, share in ((0, 0.6), (1, 0.2), (2, 0.2)):
        assert parts.count(part) / 2000 == pytest.approx(share, abs=0.03)
    assert {held_out_part(f"problem-{i}", 0.0) for i in range(50)} == {0}


def judged(*drawn, score=None):
    """Return rollouts of one problem from (tokens, outcome) pairs."""
    return [rollout(Program("p", i, "", tokens=tokens), u, score=score) for i, (tokens, u) in enumerate(drawn)]


@pytest.mark.parametrize(("count_copies", "expected"), [(True, 2.0), (False, 1.0)])
def test_a_program_drawn_twice_counts_twice_or_once(model, count_copies, expected):
    """Both ways its gradient costs one row: r = 1 a copy, no baseline, failures filtered to 0."""
    group = judged(((7, 8), Outcome.PASSED_TEST), ((7, 8), Outcome.PASSED_TEST), ((9,), Outcome.FAILED_TEST))
    config = ReturnsConfig(baseline="none", spread="uniform", filter="positive_only", count_copies=count_copies)
    found = {e.program: e.token_returns for e in actor_examples(group, model, {"p": (1,)}, config)}
    assert found == {(7, 8): (expected, expected), (9,): (0.0,)}


@pytest.mark.parametrize(("mean_one", "expected"), [(False, (0.2, 0.6)), (True, (0.5, 1.5))])
def test_the_critics_values_say_how_much_or_only_where(model, mean_one, expected):
    """r = 1 and q = 0.2, 0.6, whose mean is 0.4."""
    score = Score((0.1, 0.1, 0.2, 0.6), ((0.5, 0.2, 0.1, 0.2), (0.1, 0.1, 0.2, 0.6)))
    group = judged(((7, 8), Outcome.PASSED_TEST), score=score)
    config = ReturnsConfig(baseline="none", spread="critic", mean_one=mean_one)
    (found,) = actor_examples(group, model, {"p": (1,)}, config)
    assert found.token_returns == pytest.approx(expected)


def pool_of(drawn):
    """Return the rollouts of (problem, code, outcome)."""
    return [rollout(Program(problem, i, code, tokens=(1,)), u) for i, (problem, code, u) in enumerate(drawn)]


@pytest.mark.parametrize(
    ("use_samples", "expected"),
    [
        (False, [("a", "print(1)", "print(123)")]),
        (True, [("a", "print(1)", "print(12)"), ("b", "x = 0", "x = 1")]),
    ],
)
def test_what_a_failed_program_should_become(use_samples, expected):
    """a has a solution, b has none, c was never solved; what passed in one round mends what failed in the other."""
    passed, failed = Outcome.PASSED_TEST, Outcome.FAILED_TEST
    pools = [
        *pool_of([("a", "print(1)", failed), ("b", "x = 0", failed), ("c", "y", failed)]),
        *pool_of([("a", "print(12)", passed), ("b", "x = 1", passed), ("a", "print(1)", failed)]),
    ]
    problems = [LabelledProblem(Problem(i, i), solutions=("print(123)",) if i == "a" else ()) for i in "abc"]
    pairs = failed_pairs(pools, problems, use_samples=use_samples)
    assert [(problem.problem_id, failed.program.code, solution) for problem, failed, solution in pairs] == expected


@pytest.mark.parametrize("most", [0, 100_000])
def test_rows_are_found_by_problem_whether_or_not_they_are_held(tmp_path, monkeypatch, most):
    """Problems mixed over parts and groups of two rows: the same rows, in order, from the file as from memory."""
    monkeypatch.setattr(rollouts, "MAX_HELD_ROWS", most)
    programs = [Program("abc"[i % 3], i, f"x = {i}", tokens=(i, 300_000, -1)) for i in range(20)]
    table = tmp_path / "programs"
    for part in range(2):
        rows = programs[10 * part : 10 * part + 10]
        tables.write_table(table / f"part-{part:06d}.parquet", rows, Program, group_size=2)
    found = rollouts.ByProblem.of_programs(tmp_path)
    assert found.problem_ids() == ["a", "b", "c"]
    assert found.of(["c", "a", "none"]) == {
        name: [p for p in programs if p.problem_id == name] for name in ("c", "a")
    }  # fmt: skip
    assert found.of([]) == {}
    if not most:
        (table / "part-000001.parquet").write_text("no table")
        with pytest.raises(InputError, match="not a readable Parquet file"):
            found.of(["a"])
