"""What runs before a program: the data set's prelude, and in `apps` mode the original's; here and on a service."""

import pytest

from coderl.execution.config import ExecutionConfig, Job, prelude_of
from coderl.execution.pool import Executor
from coderl.execution.remote.client import ClientConfig, RemoteExecutor
from coderl.execution.remote.serve import Service
from coderl.execution.store import Keys, policy_of
from coderl.types import AssertTest, CallTest, Outcome, StdinTest

CONFIG = ExecutionConfig(num_workers=1, min_isolation="unsafe")
APPS = CONFIG.model_copy(update={"comparator": "apps"})
PASSED, FAILED, CRASHED = Outcome.PASSED_TEST, Outcome.FAILED_TEST, Outcome.RUNTIME_ERROR
NODE = "class Node:\n    def __init__(self, v):\n        self.v = v\n"
READ = (StdinTest("4\n", "2.0\n"),)
CALL = (CallTest(([4, 9],), [2.0, 3.0]),)
WRAPPED = (CallTest((1,), "a", is_wrapped=True),)

JOBS = [
    # a job, its outcome as we judge, and as the original does
    (Job("print(Node(float(input())).v / 2)", READ, prelude=NODE), PASSED, PASSED),
    (Job("def f(x):\n    return Node(x).v", (CallTest((1,), 1),), "f", prelude=NODE), PASSED, PASSED),
    (Job("def f(x):\n    return Node(x).v", (AssertTest("assert f(1) == 1"),), "f", prelude=NODE), PASSED, PASSED),
    (Job("from __future__ import annotations\nx: Lost\nprint(Node(2.0).v)", READ, prelude=NODE), PASSED, PASSED),
    (Job("print(float(stdin.readline()) ** 0.5)", READ), CRASHED, PASSED),
    (Job("print(sqrt(float(input())))", READ), CRASHED, PASSED),
    (Job("def f(xs):\n    return np.sqrt(xs).tolist()", CALL, "f"), CRASHED, PASSED),
    (Job("def f(xs):\n    return [sqrt(x) for x in xs]", CALL, "f"), PASSED, PASSED),
    (Job("def f(x):\n    return ['a']", WRAPPED, "f"), FAILED, PASSED),
    (Job("def f(x):\n    return 'a'", WRAPPED, "f"), PASSED, PASSED),
]


@pytest.mark.parametrize("config", [CONFIG, APPS])
def test_what_runs_before_a_program(config):
    wanted = [apps if config is APPS else strict for _, strict, apps in JOBS]
    with Executor(config) as executor:
        assert [verdict.outcome for verdict in executor.run(job for job, _, _ in JOBS)] == wanted


def test_a_service_runs_it_too():
    with Service(CONFIG) as service:
        client = ClientConfig(url=service.url, token=service.token)
        for config, column in ((CONFIG, 1), (APPS, 2)):
            with RemoteExecutor(client, config) as executor:
                found = [verdict.outcome for verdict in executor.run(row[0] for row in JOBS)]
            assert found == [row[column] for row in JOBS]


def test_lines_are_the_programs_own():
    job = Job("a = 1\nprint(Node(1).v / 0)", READ, prelude=NODE)
    with Executor(APPS) as executor:
        (verdict,) = executor.run([job])
    assert (verdict.error_subtype, verdict.error_line) == ("zerodivisionerror", 2)


def test_numpy_is_only_for_who_names_it():
    assert "numpy" not in prelude_of(Job("snp = 1", READ), APPS)
    assert "import numpy as np\n" in prelude_of(Job("np.sqrt(1)", READ), APPS)
    assert prelude_of(Job("np.sqrt(1)", READ, prelude=NODE), CONFIG) == NODE


def test_stored_verdicts_tell_preludes_and_wrapped_answers_apart():
    jobs = [
        Job("x", WRAPPED, "f"),
        Job("x", WRAPPED, "f", prelude=NODE),
        Job("x", (CallTest((1,), "a"),), "f"),
        Job("x", (CallTest(({1: 2},), "a"),), "f"),
        Job("x", (CallTest(({"1": 2},), "a"),), "f"),
    ]
    keys = Keys(policy_of(CONFIG))
    assert len({keys.key(job) for job in jobs}) == len(jobs)
    assert keys.key(jobs[0]) == keys.key(Job("x", WRAPPED, "f"))
