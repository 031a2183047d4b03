"""The critic-sample stage: what it writes, and that it resumes exactly after kill -9."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coderl import records, tables
from coderl.cli import main
from coderl.critic.model import Critic
from coderl.critic_sampling.candidates import NOT_IN_TABLES, Candidate, NoRound, SearchResult
from coderl.models.tiny import tiny_t5, train_tokenizer
from coderl.problems import jsonl
from coderl.records import facts_of
from coderl.types import (
    LabelledProblem,
    Problem,
    Program,
    ProgramKind,
    StdinTest,
)

NUM_PROBLEMS = 24
TABLES = ("candidates", "searches", "programs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks of random weights, and problems to refine (even) and to repair (odd), the last without examples."""
    out = tmp_path_factory.mktemp("search")
    tokenizer = train_tokenizer(["print(input())"] * 20, 400)
    model = tiny_t5(tokenizer, d_model=16, d_ff=16, num_layers=1, num_heads=2, dropout=0.0, seed=0)
    model.save(out / "actor")
    Critic(model, num_outcomes=2).save(out / "critic")
    code = "print(input())\n"
    shown = [StdinTest("1\n", "1\n" if i % 2 == 0 else "2\n") for i in range(NUM_PROBLEMS)]
    problems = [
        LabelledProblem(Problem(f"p{i}", "Echo.", example_tests=(shown[i],) if i < NUM_PROBLEMS - 1 else ()))
        for i in range(NUM_PROBLEMS)
    ]
    jsonl.write(out / "problems.jsonl", problems)
    rows = [Program(f"p{i}", 0, code, tokens=tuple(model.encode_program(code))) for i in range(NUM_PROBLEMS)]
    tables.PartedTable(out / "first" / "programs", Program).write(0, rows)
    return out


def command(folder: Path, out: Path) -> list[str]:
    """The stage with one problem a part."""
    flags = {"--actor": folder / "actor", "--critic": folder / "critic", "--repair-model": folder / "actor",
             "--programs": folder / "first", "--problems": folder / "problems.jsonl", "--out": out, "--num-samples": 2,
             "--sample.chunk-size": 1, "--sample.sampling.max-new-tokens": 24, "--sample.sampling.temperature": 1.0,
             "--execution.num-workers": 1}  # fmt: skip
    return ["critic-sample", *(str(part) for pair in flags.items() for part in pair)]


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    main(command(folder, folder / "whole"))
    return folder / "whole"


def test_the_stage_writes_every_candidate_what_each_search_cost_and_why_none_was_possible(whole: Path):
    rows = list(tables.read_table(whole / "candidates", Candidate, without=NOT_IN_TABLES))
    searches = {
        row.problem_id: row for row in tables.read_table(whole / "searches", SearchResult, without=NOT_IN_TABLES)
    }
    kinds = {
        i: {r.program.kind for r in rows if r.program.problem_id == f"p{i}" and r.round == 1}
        for i in range(NUM_PROBLEMS)
    }
    assert kinds[0] == {ProgramKind.REFINED}
    assert kinds[1] == {ProgramKind.REPAIRED}
    assert kinds[NUM_PROBLEMS - 1] == set()
    assert searches[f"p{NUM_PROBLEMS - 1}"].no_round is NoRound.NO_EXAMPLE_TESTS
    assert searches["p0"].no_round is None
    for name, search in searches.items():
        drawn = [len(r.program.tokens) - r.num_prefix_tokens for r in rows if r.program.problem_id == name]
        assert search.spend.num_sampled_tokens == sum(drawn)
    facts = facts_of(whole)
    assert facts["no_example_tests"] == 1
    assert facts["num_tokens"] == sum(s.spend.num_sampled_tokens for s in searches.values())
    assert facts["num_tests"] == sum(s.spend.num_executed_tests for s in searches.values()) >= NUM_PROBLEMS - 1


def kill_within(given: list[str], out: Path) -> None:
    """Run a command and kill it when it has written two problems, and not all."""
    process = subprocess.Popen(
        [sys.executable, "-m", "coderl", *given],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list(out.glob("programs/part-*.parquet"))) < 2:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / records.MANIFEST).exists()
    assert 2 <= len(list(out.glob("programs/part-*.parquet"))) < NUM_PROBLEMS


def test_a_stage_killed_with_kill_9_goes_on_to_the_same_tables(folder: Path, whole: Path):
    out = folder / "killed"
    kill_within(command(folder, out), out)
    done = {path: records.hash_path(path) for path in out.glob("programs/part-*.parquet")}
    main(command(folder, out))
    for table in TABLES:
        assert records.hash_path(out / table) == records.hash_path(whole / table)
    assert {path: records.hash_path(path) for path in done} == done


def test_another_request_in_the_same_folder_is_refused(folder: Path, whole: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main([*command(folder, whole), "--max-sampled-tokens", "50"])
    assert stopped.value.code == 2
    assert "max_sampled_tokens: null then, 50 now" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- near the greedy one


def near_greedy(folder: Path, out: Path) -> list[str]:
    """The search from the greedy program, which needs no samples, with some branches of each problem."""
    given = command(folder, out)
    at = given.index("--programs")
    flags = {"--start": "near_greedy", "--branch.max-branches": 6, "--branch.min-prob": 1e-6, "--keep": "all"}
    return [*given[:at], *given[at + 2 :], *(str(part) for pair in flags.items() for part in pair)]


@pytest.fixture(scope="module")
def branched(folder: Path) -> Path:
    main(near_greedy(folder, folder / "branched"))
    return folder / "branched"


def test_a_branch_says_which_token_was_forced_where(branched: Path):
    """Every branch keeps its parent up to one token and differs there; random weights pass nothing."""
    found: dict[str, list[Candidate]] = {}
    for row in tables.read_table(branched / "candidates", Candidate, without=NOT_IN_TABLES):
        found.setdefault(row.program.problem_id, []).append(row)
    assert len(found) == NUM_PROBLEMS
    for name, drawn in found.items():
        assert (drawn[0].program.kind, drawn[0].parent, drawn[0].fork) == (ProgramKind.SAMPLE, None, None)
        spent, beginnings = len(drawn[0].program.tokens), {drawn[0].program.tokens}
        for row in drawn[1:]:
            assert row.program.kind is ProgramKind.BRANCHED
            assert row.parent is not None
            parent, at = drawn[row.parent].program.tokens, row.num_prefix_tokens
            assert row.program.tokens[:at] == parent[:at]
            assert row.program.tokens[at] != parent[at]
            assert row.fork is not None
            assert row.fork.score <= 0
            assert row.fork.forced != row.fork.replaced
            spent += len(row.program.tokens) - at
            assert row.num_tokens_so_far == spent
            beginnings.add(row.program.tokens)
        assert len(beginnings) == len(drawn)
        assert len(drawn) == (1 if name == f"p{NUM_PROBLEMS - 1}" else 7)
    assert facts_of(branched)["num_branched"] == 6 * (NUM_PROBLEMS - 1)


def test_a_search_near_the_greedy_program_goes_on_after_kill_9_to_the_same_candidates(folder: Path, branched: Path):
    out = folder / "branched-killed"
    kill_within(near_greedy(folder, out), out)
    main(near_greedy(folder, out))
    for table in TABLES:
        assert records.hash_path(out / table) == records.hash_path(branched / table)


def test_algorithm_1_without_programs_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]):
    given = near_greedy(folder, folder / "refused")
    given[given.index("near_greedy")] = "samples"
    with pytest.raises(SystemExit) as stopped:
        main(given)
    assert stopped.value.code == 2
    assert "give --programs, the samples to begin from, or --start near_greedy" in capsys.readouterr().err
