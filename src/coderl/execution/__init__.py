"""Programs meet unit tests: a sandbox, a pool of them, and a judge that the programs never meet.

from coderl.execution import run
from coderl.types import StdinTest

results = run(["print(int(input()) + 1)"], [StdinTest("1\\n", "2\\n")])
print(results[0].outcome.name)
"""

from coderl.execution.config import ExecutionConfig, Job, Limits
from coderl.execution.pool import Executor, run

__all__ = ["ExecutionConfig", "Executor", "Job", "Limits", "run"]
