"""Does the sandbox hold? A program that tries to get out, run as any other program, and the table of what it found.

The probes are harmless where nothing stops them: they touch only a canary folder made for them, ask for signal 0,
connect to nothing, and their forked process ends at once.
"""

from __future__ import annotations

import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coderl.execution.config import ExecutionConfig
from coderl.execution.sandbox import values
from coderl.execution.sandbox.contact import Contact, EndedError, OutOfTimeError
from coderl.execution.sandbox.process import ZygoteProcess, negotiate
from coderl.types import SandboxError

_PROBE = '''
import os, socket, resource

def tries(action):
    """True when the action succeeded."""
    try:
        return action() is not False
    except BaseException:
        return False

def forks():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

def runs_a_command():
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)

def opens_a_socket(family, kind):
    socket.socket(family, kind).close()

def raises_limits():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

def calls(number, *arguments):
    import ctypes
    return ctypes.CDLL(None).syscall(number, *arguments) >= 0

def sees_descriptors():
    """Beyond its standard streams a program has the file of its job, that of its output, and the socket to us."""
    found = [fd for fd in range(3, 4096) if tries(lambda fd=fd: os.fstat(fd))]
    return len(found) > 3 or found != list(range(found[0], found[0] + 3))

def probe(folder, kernel_calls):
    canary, parent = folder + "/canary", os.getppid()
    return {
        "read a private file": tries(lambda: open(canary).read()),
        "write a file": tries(lambda: open(folder + "/new", "w").close()),
        "delete a file": tries(lambda: os.remove(folder + "/spare")),
        "write to /tmp": tries(lambda: os.rmdir(os.makedirs("/tmp/coderl-probe") or "/tmp/coderl-probe")),
        "start a process": tries(forks),
        "run a command": tries(runs_a_command),
        "signal its parent": tries(lambda: os.kill(parent, 0)),
        "read its parent's memory": tries(lambda: open(f"/proc/{parent}/mem", "rb").close()),
        "open an internet socket": tries(lambda: opens_a_socket(socket.AF_INET, socket.SOCK_DGRAM)),
        "open a local socket": tries(lambda: opens_a_socket(socket.AF_UNIX, socket.SOCK_STREAM)),
        "raise its limits": tries(raises_limits),
        "see the caller's environment": "PATH" in os.environ,
        "use inherited descriptors": sees_descriptors(),
        "be root": os.geteuid() == 0,
        **{f"call {name}": tries(lambda number=number: calls(number, 0, 0, 0, 0, 0)) for name, number in kernel_calls},
    }
'''
_KERNEL_CALLS = {
    "x86_64": {"unshare": 272, "userfaultfd": 323, "keyctl": 250},
    "aarch64": {"unshare": 97, "userfaultfd": 282, "keyctl": 219},
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the self-test."""

    name: str
    is_good: bool
    detail: str


def _escapes(config: ExecutionConfig, zygote: ZygoteProcess) -> dict[str, bool]:
    """What a program in this sandbox could do: attempt -> whether it succeeded.

    Raises:
        SandboxError: the probe itself did not run.
    """
    with tempfile.TemporaryDirectory(prefix="coderl-canary-") as folder:
        Path(folder).chmod(0o777)
        for name in ("canary", "spare"):
            Path(folder, name).write_text("canary")
            Path(folder, name).chmod(0o666)
        calls = _KERNEL_CALLS.get(platform.machine(), {})
        arguments = [values.encode(folder), values.encode([list(item) for item in calls.items()])]
        return _ask(config, zygote, arguments)


def _ask(config: ExecutionConfig, zygote: ZygoteProcess, arguments: list[Any]) -> dict[str, bool]:
    job = {"kind": "module", "code": _PROBE, "fn_name": "probe", "tests": [{"args": arguments}], "cpu_s": 60}
    contact = Contact(zygote, job, config)
    try:
        message = contact.receive()
        found = values.decode(message["value"])
    except (EndedError, OutOfTimeError, KeyError, TypeError, ValueError) as error:
        raise SandboxError(f"the containment probe did not run: {error!r}") from None
    finally:
        contact.close()
    if not isinstance(found, dict):
        raise SandboxError(f"the containment probe did not run: {message.get('error')}")
    return found


def ways_out(config: ExecutionConfig, zygote: ZygoteProcess) -> list[str]:
    """What a program can do that it should not, although every layer reported success; `unsafe` is not asked.

    Raises:
        SandboxError: the probe itself did not run.
    """
    if zygote.level == "unsafe":
        return []
    return [name for name, is_open in _escapes(config, zygote).items() if is_open]


def doctor(config: ExecutionConfig | None = None) -> list[Finding]:
    """What isolates programs on this machine, layer by layer, and whether each attempt to get out was stopped.

    Raises:
        SandboxError: no sandbox of the level that `config` asks for can be had.
    """
    config = config or ExecutionConfig(min_isolation="unsafe")
    plan, zygote = negotiate(config)
    try:
        findings = [Finding("isolation level", plan.level != "unsafe", plan.level)]
        for layer in ("namespaces", "landlock", "seccomp"):
            is_on = layer in zygote.layers
            findings.append(Finding(f"layer: {layer}", is_on, "on" if is_on else zygote.missing(layer)))
        for name, succeeded in _escapes(config, zygote).items():
            findings.append(
                Finding(f"a program may not {name}", not succeeded, "NOT STOPPED" if succeeded else "stopped")
            )
    finally:
        zygote.close()
    return findings


def print_doctor(config: ExecutionConfig | None = None) -> int:
    """Print the self-test as a table; 0 where programs are isolated and nothing got out, 1 otherwise."""
    table = Table("", "check", "finding", box=None)
    findings = doctor(config)
    for finding in findings:
        table.add_row("[green]ok[/]" if finding.is_good else "[red]no[/]", finding.name, escape(finding.detail))
    Console().print(table)
    is_isolated = findings[0].is_good
    return 0 if is_isolated and all(f.is_good for f in findings if f.name.startswith("a program")) else 1
