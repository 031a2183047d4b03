"""Programs meet unit tests: a sandbox, a pool of them, and a judge that the programs never meet.

from coderl.execution import run
from coderl.types import StdinTest

results = run(["print(int(input()) + 1)"], [StdinTest("1", "2")])
print(results[0].outcome.name)
"""

from coderl.execution.backends import open_executor
from coderl.execution.config import ExecutionConfig, Job, Limits, job_of
from coderl.execution.pool import Executor, run
from coderl.execution.probes import Finding, doctor, print_doctor

__all__ = [
    "ExecutionConfig",
    "Executor",
    "Finding",
    "Job",
    "Limits",
    "doctor",
    "job_of",
    "open_executor",
    "print_doctor",
    "run",
]
