"""The cluster: batches cut, lost, sent again and put in order; and two real nodes of which one is killed."""

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.execution.config import ExecutionConfig, Job
from coderl.execution.remote.ray import ClusterConfig, ClusterExecutor, _Flow
from coderl.types import (
    InputError,
    Outcome,
    StdinTest,
    Verdict,
)


def jobs(count: int) -> Iterator[Job]:
    return (Job(str(n), (StdinTest("", ""),)) for n in range(count))


def answer(job: Job) -> Verdict:
    return Verdict(Outcome.PASSED_TEST, message=job.code)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 60), size=st.integers(1, 7), random=st.randoms(use_true_random=False))
def test_whatever_is_lost_the_order_stays(count: int, size: int, random: object) -> None:
    """Batches finish in any order and are lost now and then: results come in the order of the jobs, each once."""
    flow = _Flow(jobs(count), ClusterConfig(batch_size=size, num_tries=1000))
    under_way, results = [], []
    while True:
        while len(under_way) < 4 and (batch := flow.next_batch(num_ahead=6)) is not None:
            under_way.append(batch)
        results += flow.finished_in_order()
        if not under_way:
            if flow.is_empty():
                break
            continue
        batch = under_way.pop(random.randrange(len(under_way)))  # type: ignore[attr-defined]
        if random.random() < 0.3:  # type: ignore[attr-defined]
            flow.lose(batch, "gone")
        else:
            flow.finish(batch, [answer(job) for job in batch.jobs])
    assert [result.message for result in results] == [str(n) for n in range(count)]


def test_a_batch_that_no_node_survives_becomes_faults() -> None:
    """After `num_tries` losses its programs are faults, never verdicts, and the others are not touched."""
    flow = _Flow(jobs(4), ClusterConfig(batch_size=2, num_tries=2))
    first, second = flow.next_batch(num_ahead=9), flow.next_batch(num_ahead=9)
    assert first is not None
    assert second is not None
    flow.finish(second, [answer(job) for job in second.jobs])
    flow.lose(first, "gone")
    assert flow.next_batch(num_ahead=9) is first
    flow.lose(first, "gone again")
    results = list(flow.finished_in_order())
    assert [result.fault is None for result in results] == [False, False, True, True]
    assert "lost 2 times, last: gone again" in (results[0].fault or "")


def test_jobs_are_not_taken_far_ahead() -> None:
    """While the first batch is under way only so many others are cut."""
    flow = _Flow(jobs(1000), ClusterConfig(batch_size=5))
    batches = []
    while (batch := flow.next_batch(num_ahead=3)) is not None:
        batches.append(batch)
    assert len(batches) == 3


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Ray is missing, one line says what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"coderl\[ray\]"), ClusterExecutor():
        pass


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_node_killed_midway_loses_nothing() -> None:
    """Two real nodes, one killed after 60 results: every job has its verdict, the same as on this machine alone."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from coderl.execution import Executor

    codes = ["print(int(input()) + 1)", "print(2)", "print(", "1 / 0", "import sys; print(1 + int(sys.stdin.read()))"]
    tests = tuple(StdinTest(f"{n}\n", f"{n + 1}\n") for n in range(1, 4))
    work = [Job(f"{codes[n % 5]}\n# {n}", tests) for n in range(300)]
    with Executor(ExecutionConfig(num_workers=2)) as local:
        expected = [_settled(result) for result in local.run(work)]
    store = {"object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **store})
    try:
        node = cluster.add_node(num_cpus=1, **store)
        config = ClusterConfig(address=cluster.address, batch_size=4)
        with ClusterExecutor(ExecutionConfig(), config) as executor:
            assert executor.num_nodes == 2
            got = []
            for result in executor.run(work):
                got.append(_settled(result))
                if len(got) == 60:
                    cluster.remove_node(node, allow_graceful=False)
            assert executor.num_nodes == executor.num_lost_nodes == 1
    finally:
        cluster.shutdown()
    assert got == expected


def _settled(result: Verdict) -> Verdict:
    assert result.fault is None
    return replace(result, cpu_s=0.0, wall_s=0.0)
