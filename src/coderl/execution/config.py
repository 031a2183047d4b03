"""What a run of programs may use up and how it is judged."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from coderl.settings import Config, Incidental, decisive
from coderl.types import InputError, LabelledProblem, SandboxError, StdinTest, UnitTest, Verdict

Isolation = Literal["unsafe", "portable", "strong"]
LEVELS: tuple[Isolation, ...] = ("unsafe", "portable", "strong")
"""From the weakest to the strongest."""
Layer = Literal["namespaces", "landlock", "seccomp"]
LAYERS: tuple[Layer, ...] = ("namespaces", "landlock", "seccomp")


class Limits(Config):
    """What one program may use up on one test."""

    cpu_limit_s: float = Field(default=4.0, gt=0)
    """CPU seconds of a quiet machine, not wall: load must not change a verdict. Four, as the original's alarm."""
    wall_limit_s: float = Field(default=30.0, gt=0)
    """For programs that sleep; time in which the machine had no processor for the program does not count."""
    memory_limit_bytes: int = Field(default=1 << 30, ge=64 << 20)
    """Address space beyond what the interpreter and the stacks of a few threads take (1 GiB is added for those)."""
    output_limit_bytes: int = Field(default=32 << 20, gt=0)
    """Of standard output, and of a returned value as JSON."""


class ExecutionConfig(Limits):
    """How programs are run and judged."""

    num_workers: Annotated[int, Incidental("how many programs run side by side")] = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)), ge=1
    )
    """Zygotes; one for each processor is best."""
    comparator: Literal["strict", "apps", "exact"] = "strict"
    """See `judge`. Assertions always mean what Python means by them."""
    assertions: Literal["isolated", "trusting"] = "isolated"
    """Where the code of an assertion runs: where the program cannot touch it, so that a test which only the program's
    own word could decide is a fault that says so; or beside the program, as most graders do, believing what it says."""
    stop: Literal["first_failure", "never"] = "first_failure"
    """`never` runs every test, for a reward that counts them."""
    min_isolation: Isolation = "portable"
    """Refuse to run with less. `unsafe` must be asked for and then runs with whatever there is."""
    layers: tuple[Layer, ...] = LAYERS
    """What to isolate with, where it is to be had; leaving one out shows how the sandbox does without."""
    site_packages: bool = True
    """Let programs import what is installed beside this package (numpy)."""
    preload: tuple[str, ...] = ()
    """Modules to import once for all programs, besides the usual ones; each makes every fork dearer."""
    recycle_after: Annotated[int, Incidental("a fresh zygote judges alike")] = Field(default=10_000, ge=1)
    """Programs that one zygote runs before a fresh one takes its place."""
    backend: Annotated[Literal["local", "ray", "http"], Incidental("where programs run")] = "local"
    """This machine, the nodes of a Ray cluster, or a `coderl serve-execution` elsewhere."""
    address: Annotated[str | None, Incidental("where programs run")] = None
    """Of the cluster (None starts one here) or the service (http://host:port, its token in CODERL_EXECUTION_TOKEN)."""
    store_path: Annotated[Path | None, Incidental("what is kept is what would be found")] = None
    """An sqlite file on a local disk that keeps verdicts, so that no program is run twice; None keeps none."""

    def decisive(self) -> dict[str, Any]:
        """The settings that decide a verdict; the others only say where and how fast it is reached."""
        return decisive(self)


@dataclass(frozen=True, slots=True)
class Job:
    """One program and what is asked of it.

    Raises:
        InputError: there is no test, so that no verdict could be meant.
    """

    code: str
    tests: tuple[UnitTest, ...]
    fn_name: str | None = None
    """The function under test; needed by call and assert tests."""
    checker: str | None = None
    """Source of `check(stdin, expected, printed) -> bool`, for problems with many right answers."""
    prelude: str = ""
    """Runs before the program in its module (imports, classes that the data set gives); error lines do not count it."""

    def __post_init__(self) -> None:
        if not self.tests:
            raise InputError("a job without tests has no verdict: give at least one test")


def job_of(labelled: LabelledProblem, code: str, tests: Sequence[UnitTest] | None = None) -> Job:
    """Return the job of judging a program of a problem, by its hidden tests where no others are given.

    Raises:
        InputError: there is no test.
    """
    problem = labelled.problem
    unit_tests = labelled.hidden_tests if tests is None else tuple(tests)
    return Job(code, unit_tests, problem.fn_name, labelled.checker, problem.prelude)


_APPS_PRELUDE = """\
import sys
import time
import itertools
from itertools import accumulate, product, permutations, combinations
import collections
from collections import Counter, OrderedDict, deque, defaultdict, ChainMap
from functools import lru_cache
import math
from math import sqrt, sin, cos, tan, ceil, fabs, floor, gcd, exp, log, log2
import fractions
from typing import List, Tuple
import random
import heapq
from heapq import *
"""


def prelude_of(job: Job, config: ExecutionConfig) -> str:
    """Return what runs before a job's program: its own prelude, in `apps` mode behind what the original puts there.

    Source: the original's `utils/testing_util.py`, whose programs may use names that they never import.
    Deviation: numpy, which is slow to load, is imported only for a program that says `np`.
    """
    if config.comparator != "apps":
        return job.prelude
    numpy = "import numpy as np\n" if re.search(r"\bnp\b", job.code) else ""
    streams = "stdin = sys.stdin\nstdout = sys.stdout\n" if isinstance(job.tests[0], StdinTest) else ""
    return _APPS_PRELUDE + numpy + streams + job.prelude


MAX_FAULT_RATE = 0.05
"""Whoever runs many programs stops when the sandbox itself fails on more than this share of them."""


def sandbox_faults(verdicts: Iterable[Verdict]) -> list[str]:
    """Return the faults that are the sandbox's own, and not those of a test, checker or prelude as it is written."""
    of_tests = ("test ", "the test ", "the checker ", "the prelude ")
    return [v.fault for v in verdicts if v.fault is not None and not v.fault.startswith(of_tests)]


def refuse_faults(faults: Sequence[str], num_programs: int) -> None:
    """Refuse to go on where the sandbox failed on too many programs to trust the rest.

    Raises:
        SandboxError: on more than `MAX_FAULT_RATE` of them, and on more than three.
    """
    if len(faults) > max(MAX_FAULT_RATE * num_programs, 3):
        raise SandboxError(f"the sandbox failed on {len(faults)} of {num_programs} programs; last: {faults[-1]}")
