"""Problems of a person: what is submitted, why, and what the view says of the way there."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from coderl import records
from coderl.cli import main
from coderl.critic_sampling.candidates import Candidate, Fork, NoRound, SearchResult, Spend
from coderl.models.tiny import tiny_t5, train_tokenizer
from coderl.problems import jsonl
from coderl.prompts import PromptConfig
from coderl.recipe import RECIPE, RunConfig
from coderl.stages.solve import settings_of, solved, text_of, view
from coderl.types import LabelledProblem, Outcome, Problem, Program, ProgramKind, StdinTest, Verdict

TESTS = (StdinTest("1\n", "2\n"), StdinTest("4\n", "5\n"))
PROBLEM = Problem("p", "Add one.", example_tests=TESTS)
FAILED, PASSED = Verdict(Outcome.FAILED_TEST), Verdict(Outcome.PASSED_TEST)
CRASHED = Verdict(Outcome.RUNTIME_ERROR, "nameerror")


def candidate(index, code, result, kind=ProgramKind.SAMPLE, parent=None, fork=None, returned=False):
    return Candidate(Program("p", index, code, kind), index, parent, 0, result, None, 10, 1, returned, fork)


GREEDY = candidate(0, "print(0)\n", FAILED)
FORK = Fork(-1.25, 1, 3, " +", " -")


def result(*candidates):
    return SearchResult("p", NoRound.NO_NEED if len(candidates) == 1 else None, 0, 0, Spend(1234, 3, 3), candidates)


def test_a_branch_that_passes_says_which_token_made_it():
    branch = candidate(1, "print(1)\n", PASSED, ProgramKind.BRANCHED, 0, FORK, returned=True)
    found = solved(PROBLEM, result(GREEDY, branch))
    assert (found.code, found.passes, found.num_tried, found.num_tokens) == ("print(1)\n", True, 2, 1234)
    assert text_of(found) == (
        "print(1)\n\n# program 2 of 2 tried is the first to pass the 2 example tests: "
        "program 1 with ' +' for ' -' on line 3 (-1.2); 1,234 tokens"
    )


def test_where_nothing_passes_the_greedy_program_is_handed_in_and_said_to_fail():
    given = candidate(0, "print(0)\n", FAILED, returned=True)
    found = solved(PROBLEM, result(given, candidate(1, "x\n", CRASHED, ProgramKind.BRANCHED, 0, FORK)))
    assert not found.passes
    assert found.why == "none of 2 programs tried passes the 2 example tests: this is the greedy program"
    bare = solved(Problem("p", "d"), result(candidate(0, "x\n", None, returned=True)))
    assert bare.why.startswith("the statement shows no example test")


def test_the_view_shows_how_each_program_came_about_and_what_became_of_it():
    repair = candidate(2, "r\n", PASSED, ProgramKind.REPAIRED, 1)
    branch = candidate(1, "x\n", CRASHED, ProgramKind.BRANCHED, 0, FORK)
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(view(PROBLEM, result(GREEDY, branch, repair)))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert lines[0] == "p: 3 programs, 1,234 tokens"
    assert lines[2].startswith("1 the greedy program")
    assert lines[3].startswith("2 program 1 with ' +' for ' -' on line 3 (-1.2)")
    assert lines[3].endswith("(nameerror)")
    assert lines[4].startswith("3 a repair of program 2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("solve")
    tokenizer = train_tokenizer(["print(input())"] * 20, 400)
    tiny_t5(tokenizer, d_model=8, d_ff=8, num_layers=1, num_heads=1, dropout=0.0, seed=0).save(out / "run" / "model")
    problems = [LabelledProblem(Problem(f"p{i}", "Echo.", example_tests=TESTS)) for i in range(3)]
    jsonl.write(out / "problems.jsonl", problems)
    config = RunConfig(prompt=PromptConfig(max_prompt_tokens=99))
    records.write_json(out / "run" / RECIPE, config.model_dump(mode="json"))
    return out


def test_a_model_of_a_run_is_asked_as_the_run_asks(folder: Path):
    assert settings_of(folder / "run" / "model")[0].max_prompt_tokens == 99
    assert settings_of("owner/name")[0] == PromptConfig()


@pytest.mark.parametrize("flags", [["--problem-id", "p1"], []])
def test_the_command_ends_with_1_where_nothing_passes_and_writes_what_it_found(folder: Path, flags, capsys):
    """Random weights solve nothing: one problem prints its program, several a table."""
    out = folder / "solved.json"
    given = ["solve", folder / "problems.jsonl", "--model", folder / "run" / "model", *flags, "--json", out]
    given += ["--sampling.max-new-tokens", "8", "--branch.max-branches", "2", "--execution.num-workers", "1"]
    with pytest.raises(SystemExit) as stopped:
        main([str(part) for part in given])
    assert stopped.value.code == 1
    found = records.read_json(out)
    assert [each["problem_id"] for each in found] == (["p1"] if flags else ["p0", "p1", "p2"])
    assert all(not each["passes"] and each["num_tried"] == 3 for each in found)
    printed = capsys.readouterr().out
    assert ("# none of 3 programs tried passes" in printed) == bool(flags)


def test_an_unknown_problem_is_one_line(folder: Path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["solve", str(folder / "problems.jsonl"), "--problem-id", "p9", "--model", str(folder / "run" / "model")])
    assert stopped.value.code == 2
    assert "no problem 'p9'" in capsys.readouterr().err
