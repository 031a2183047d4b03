"""How much a second of processor time is worth just now: on a busy machine a program needs up to twice as many."""

from __future__ import annotations

from coderl.execution.config import Limits
from coderl.execution.sandbox.contact import Contact, EndedError, OutOfTimeError
from coderl.execution.sandbox.process import CLOCK_SLOT, ZygoteProcess
from coderl.execution.sandbox.values import MalformedError
from coderl.types import SandboxError

_PROGRAM = """
import time

def spin():
    started = time.process_time()
    total, seen = 0, {}
    for n in range(120_000):
        total = (total * 31 + n) % 1_000_003
        seen[total & 1023] = [n, total]
    return time.process_time() - started
"""
_REFERENCE_S = 0.025
"""What it takes on a quiet server of 2022 or so; on a slower one a limit is worth as many of its seconds more."""


def slowness(zygote: ZygoteProcess, limits: Limits) -> float:
    """Return how many seconds of processor time pass now for one on a quiet machine; at least 1.

    Raises:
        SandboxError: the measurement did not run.
    """
    message = {"kind": "module", "code": _PROGRAM, "fn_name": "spin", "tests": [{"args": []}], "cpu_s": 60}
    limits = limits.model_copy(update={"cpu_limit_s": 60.0, "wall_limit_s": 600.0})
    contact = Contact(zygote, message, limits, CLOCK_SLOT)
    try:
        took_s = contact.receive()["value"]
    except (EndedError, OutOfTimeError, MalformedError, KeyError) as error:
        raise SandboxError(f"the machine's speed could not be measured: {error!r}") from None
    finally:
        contact.close()
    return max(1.0, took_s / _REFERENCE_S)
