"""The config's executor: on this machine or elsewhere, with or without a store of verdicts before it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from coderl import processes
from coderl.execution.config import ExecutionConfig
from coderl.execution.pool import Executor
from coderl.execution.remote.client import ClientConfig, RemoteExecutor
from coderl.execution.remote.ray import ClusterConfig, ClusterExecutor
from coderl.execution.store import (
    JobRunner,
    ResultStore,
    StoredExecutor,
    policy_of,
)
from coderl.types import InputError

TOKEN_VARIABLE = "CODERL_EXECUTION_TOKEN"
"""Where the bearer token of the HTTP backend is read: a flag would show it to every user of the machine."""


@contextmanager
def open_executor(config: ExecutionConfig) -> Iterator[JobRunner]:
    """Yield what runs jobs as the config says; it is closed with the context.

    Raises:
        InputError: the backend cannot be reached or is not installed, or the store is not one.
        SandboxError: the isolation that the config asks for cannot be had.
    """
    with ExitStack() as stack:
        runner: JobRunner = stack.enter_context(_backend(config))
        if config.store_path is not None:
            store = stack.enter_context(ResultStore(config.store_path))
            runner = StoredExecutor(runner, store, policy_of(config))
        yield runner


def _backend(config: ExecutionConfig) -> Executor | ClusterExecutor | RemoteExecutor:
    if config.backend == "ray":
        return ClusterExecutor(config, ClusterConfig(address=config.address))
    if config.backend == "http":
        if not config.address:
            raise InputError("the http backend needs the service's address, such as http://127.0.0.1:8321")
        if not (token := os.environ.get(TOKEN_VARIABLE)):
            raise InputError(f"the http backend needs the service's token in the environment variable {TOKEN_VARIABLE}")
        return RemoteExecutor(ClientConfig(url=config.address, token=token), config)
    share = max(config.num_workers // processes.num_local(), 1)  # each process on this machine has a pool
    return Executor(config.model_copy(update={"num_workers": share}))
