"""The executor on many machines: one pool of zygotes a node of a Ray cluster, fed in batches.

Each node has an actor with an `Executor` of its own, which holds the tests and compares there, as the local one does
here; programs run in that node's sandbox. Needs the extra `ray`, and this package on every node.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from coderl.execution.config import ExecutionConfig, Job
from coderl.types import InputError, SandboxError, Verdict

_log = logging.getLogger(__name__)


class ClusterConfig(BaseModel):
    """Where the nodes are and how they are fed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = None
    """Of a running cluster (`auto`, or host:port); None starts one on this machine."""
    batch_size: int = Field(default=32, ge=1)
    """Programs a message."""
    num_batches_ahead: int = Field(default=3, ge=1)
    """Batches a node holds at once, so that none of its zygotes waits for the network."""
    num_tries: int = Field(default=4, ge=1)
    """Nodes that may be lost under a batch before its programs count as faults."""
    node_wait_s: float = Field(default=120.0, gt=0)
    """How long to wait, when all nodes are lost, for one to come back."""


def connect(address: str | None) -> Any:
    """Return Ray, connected to the cluster at an address; None starts one on this machine.

    Raises:
        InputError: Ray is not installed, or no cluster answers at the address.
    """
    return _connected(address)[0]


def _connected(address: str | None) -> tuple[Any, bool]:
    """Return Ray, and whether it was not connected before."""
    try:
        import ray  # type: ignore[import-not-found]
    except ImportError:
        raise InputError("the ray backend needs Ray: pip install 'coderl[ray]'") from None
    connected: Any = ray
    if connected.is_initialized():
        return connected, False
    how = {"include_dashboard": None if address else False, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        connected.init(address=address, **how)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray cluster at {address!r}: {error}") from None
    return connected, True


@dataclass
class _Batch:
    """Jobs that travel together."""

    index: int
    jobs: list[Job]
    num_losses: int = 0


def _faults(batch: _Batch, text: str) -> list[Verdict]:
    return [Verdict(None, fault=text)] * len(batch.jobs)


class _NodePool:
    """What runs on a node: an executor of as many zygotes as the node has processors."""

    def __init__(self, config_json: str, num_workers: int) -> None:
        from coderl.execution.pool import Executor

        config = ExecutionConfig.model_validate_json(config_json)
        self._executor = Executor(config.model_copy(update={"num_workers": num_workers}))

    def start(self) -> str:
        """Start the zygotes and return the level of isolation that this node reached."""
        self._executor.__enter__()
        return self._executor.isolation

    def run(self, jobs: list[Job]) -> list[Verdict]:
        """Return one verdict a job."""
        return list(self._executor.run(jobs))


class ClusterExecutor:
    """Runs jobs on all nodes of a Ray cluster, in order, with the interface of `Executor`. Use as a context manager.

    A batch on a node that is lost is run again on another; a node that joins is used. Verdicts do not depend on the
    node.

    Raises:
        InputError: Ray is not installed, or no cluster answers at the address.
        SandboxError: on entering, where a node cannot give the isolation asked for; in `run`, where no node is left.
    """

    def __init__(self, config: ExecutionConfig | None = None, cluster: ClusterConfig | None = None) -> None:
        self.config = config or ExecutionConfig()
        self.cluster = cluster or ClusterConfig()
        self.num_lost_nodes = 0
        """How often a node went away under its work."""
        self._ray: Any = None
        self._owns_ray = False
        self._pools: dict[str, Any] = {}
        self._looked_at = 0.0

    def __enter__(self) -> ClusterExecutor:
        ray, self._owns_ray = _connected(self.cluster.address)
        self._ray = ray
        self._wait_for_nodes()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for pool in self._pools.values():
            self._ray.kill(pool)
        self._pools.clear()
        if self._owns_ray:
            self._ray.shutdown()

    @property
    def num_nodes(self) -> int:
        """Nodes in use now."""
        return len(self._pools)

    def run(self, jobs: Iterable[Job]) -> Iterator[Verdict]:
        """Yield one result a job, in the order of the jobs; few batches are taken ahead of the results asked for.

        Raises:
            SandboxError: no node is left and none joins in time.
        """
        flow = _Flow(iter(jobs), self.cluster)
        under_way: dict[Any, tuple[_Batch, str]] = {}
        try:
            while True:
                self._feed(flow, under_way)
                yield from flow.finished_in_order()
                if not under_way:
                    if flow.is_empty():
                        return
                    self._wait_for_nodes()
                    continue
                ready, _ = self._ray.wait(list(under_way), num_returns=1, timeout=5.0)
                for reference in ready:
                    self._take(reference, *under_way.pop(reference), flow)
        finally:
            for reference in under_way:
                self._ray.cancel(reference, recursive=False)

    def _feed(self, flow: _Flow, under_way: dict[Any, tuple[_Batch, str]]) -> None:
        """Send batches until every node holds its share."""
        if time.monotonic() - self._looked_at > 10.0:
            self._look_for_nodes()
        held = dict.fromkeys(self._pools, 0)
        for _, node in under_way.values():
            held[node] = held.get(node, 0) + 1
        while self._pools:
            node = min(self._pools, key=held.__getitem__)
            if held[node] >= self.cluster.num_batches_ahead:
                return
            batch = flow.next_batch(num_ahead=4 * self.cluster.num_batches_ahead * len(self._pools))
            if batch is None:
                return
            under_way[self._pools[node].run.remote(batch.jobs)] = (batch, node)
            held[node] += 1

    def _take(self, reference: Any, batch: _Batch, node: str, flow: _Flow) -> None:
        try:
            flow.finish(batch, self._ray.get(reference))
        except self._ray.exceptions.RayTaskError as error:  # the node is there, our code on it failed
            flow.finish(batch, _faults(batch, f"on node {node}: {error.cause or error}"))
        except self._ray.exceptions.RayError as error:
            _log.warning("node %s is lost (%s): %d programs run again", node, type(error).__name__, len(batch.jobs))
            if self._pools.pop(node, None) is not None:
                self.num_lost_nodes += 1
            flow.lose(batch, f"{type(error).__name__} on node {node}")

    # ------------------------------------------------------------------------------------------------------- nodes

    def _look_for_nodes(self) -> None:
        """Put a pool on every node that has none.

        Raises:
            SandboxError: a node cannot give the isolation asked for.
        """
        self._looked_at = time.monotonic()
        nodes = {n["NodeID"]: n["Resources"] for n in self._ray.nodes() if n["Alive"] and n["Resources"].get("CPU")}
        new = {node: self._start_pool(node, int(nodes[node]["CPU"])) for node in nodes.keys() - self._pools.keys()}
        for node, pool in new.items():
            try:
                self._ray.get(pool.start.remote(), timeout=self.cluster.node_wait_s)
            except self._ray.exceptions.RayTaskError as error:
                raise SandboxError(f"on node {node}: {error.cause or error}") from None
            except self._ray.exceptions.RayError as error:
                _log.warning("node %s does not start a pool (%s)", node, type(error).__name__)
                continue
            self._pools[node] = pool

    def _start_pool(self, node: str, num_processors: int) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # type: ignore[import-not-found]

        actor = self._ray.remote(_NodePool).options(
            num_cpus=0,  # it uses the node's processors whether or not Ray counts them
            max_concurrency=self.cluster.num_batches_ahead + 1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False),
        )
        return actor.remote(self.config.model_dump_json(), num_processors)

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + self.cluster.node_wait_s
        self._look_for_nodes()
        while not self._pools:
            if time.monotonic() > deadline:
                raise SandboxError(f"no node of the cluster is left after {self.cluster.node_wait_s:.0f} s")
            time.sleep(1.0)
            self._look_for_nodes()


class _Flow:
    """Batches on their way: cut from the jobs, lost and sent again, finished and put in order."""

    def __init__(self, jobs: Iterator[Job], cluster: ClusterConfig) -> None:
        self._jobs, self._cluster = jobs, cluster
        self._again: deque[_Batch] = deque()
        self._finished: dict[int, list[Verdict]] = {}
        self._num_cut = self._num_yielded = 0

    def next_batch(self, *, num_ahead: int) -> _Batch | None:
        """Return a batch to send; None where there is none, or enough results wait for an earlier one."""
        if self._again:
            return self._again.popleft()
        if self._num_cut - self._num_yielded >= num_ahead:
            return None
        jobs = list(islice(self._jobs, self._cluster.batch_size))
        if not jobs:
            return None
        self._num_cut += 1
        return _Batch(self._num_cut - 1, jobs)

    def is_empty(self) -> bool:
        """True when nothing is left to send."""
        batch = self.next_batch(num_ahead=1 << 60)
        if batch is not None:
            self._again.append(batch)
        return batch is None

    def finish(self, batch: _Batch, results: list[Verdict]) -> None:
        """Take the results of a batch."""
        assert len(results) == len(batch.jobs)
        self._finished[batch.index] = results

    def lose(self, batch: _Batch, why: str) -> None:
        """Send a batch again, or give it up where too many nodes were lost under it."""
        batch.num_losses += 1
        if batch.num_losses >= self._cluster.num_tries:
            self.finish(batch, _faults(batch, f"lost {batch.num_losses} times, last: {why}"))
        else:
            self._again.append(batch)

    def finished_in_order(self) -> Iterator[Verdict]:
        """Yield what is finished and next in line."""
        while self._num_yielded in self._finished:
            yield from self._finished.pop(self._num_yielded)
            self._num_yielded += 1
