"""Zygotes as seen from outside: what they are told, how they are started, which level of isolation was reached."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coderl.execution.config import (
    LAYERS,
    LEVELS,
    ExecutionConfig,
    Isolation,
)
from coderl.execution.sandbox import zygote as zygote_script
from coderl.types import SandboxError

NOBODY = 65534
_START_LIMIT_S = 60.0
_NUM_FILES = 1024
_MIN_FILES = 64
_MAX_PACKETS = 4096
PROGRAM_SLOT, TESTER_SLOT, CLOCK_SLOT = 0, 1, 2
_NUM_THREADS = 512
_STACK_BYTES = 256 << 20
_INTERPRETER_BYTES = 1 << 30
_MIN_FILE_BYTES = 64 << 20
_USUAL = (
    "array", "bisect", "collections", "collections.abc", "copy", "enum", "functools", "heapq", "io", "itertools",
    "json", "math", "operator", "os", "random", "re", "string", "struct", "sys", "threading", "time", "types", "typing",
)  # fmt: skip
_RARER = (
    "abc", "asyncio", "calendar", "cmath", "concurrent.futures", "contextlib", "dataclasses", "datetime", "decimal",
    "fractions", "hashlib", "inspect", "logging", "numbers", "pprint", "queue", "statistics", "textwrap",
    "unittest",
)  # fmt: skip
FLAVOURS: tuple[tuple[str, ...], ...] = ((), _RARER, (*_RARER, "numpy"))
"""What zygotes of each kind import beyond the usual modules: a fork costs by the page, an import by the millisecond."""
_IMPORTS = re.compile(r"^[ \t]*(?:import|from)[ \t]+([^#\n]+)", re.MULTILINE)


def flavour_of(code: str) -> int:
    """Which kind of zygote suits a program, by the modules that its text imports."""
    words = {word for line in _IMPORTS.findall(code) for word in re.split(r"[\s,.]+", line.split(" import ")[0])}
    if "numpy" in words:
        return 2
    return 1 if not words.isdisjoint(name.split(".")[0] for name in _RARER) else 0


_REMEDIES = {
    "namespaces": "unprivileged user namespaces are off (sysctl user.max_user_namespaces, "
    "kernel.apparmor_restrict_unprivileged_userns; in a container, --security-opt seccomp=unconfined)",
    "landlock": "Landlock is missing (Linux 5.13 or later with `landlock` in the boot parameter lsm=)",
    "seccomp": "seccomp filters are missing (CONFIG_SECCOMP_FILTER, on x86_64 or aarch64)",
    "user": "the user could not be changed (root without CAP_SETUID)",
    "limits": "resource limits could not be set",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Which layers a zygote is told to put on, and what that amounts to."""

    namespaces: bool
    landlock: bool
    seccomp: bool

    @property
    def level(self) -> Isolation:
        """`strong` has all three; `portable` closes system calls and files, by Landlock or by an own root."""
        if self.seccomp and self.landlock and self.namespaces:
            return "strong"
        return "portable" if self.seccomp and (self.landlock or self.namespaces) else "unsafe"


class RefusedError(Exception):
    """A layer could not be put on."""

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(f"{layer}: {why}")
        self.layer = layer
        self.why = why


def readable_paths(config: ExecutionConfig) -> list[str]:
    """What a program may read: the interpreter, its libraries, time zones, and installed packages if asked for."""
    paths = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), f"{sys.base_prefix}/lib"}
    paths |= {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime"}
    if config.site_packages:
        paths |= set(_site_packages())
    real = {os.path.realpath(path) for path in paths if not os.path.islink(path)}
    return sorted(path for path in real | {p for p in paths if os.path.islink(p)} if os.path.exists(path))


def _site_packages() -> list[str]:
    return sorted({os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")})


def _module_path(config: ExecutionConfig) -> list[str]:
    stdlib = os.path.realpath(sysconfig.get_path("stdlib"))
    return [stdlib, f"{stdlib}/lib-dynload", *(_site_packages() if config.site_packages else [])]


def _open_to_others(path: str) -> bool:
    """True when an ordinary user may enter every folder on the way to `path`."""
    return all(folder.stat().st_mode & 0o001 for folder in [Path(path), *Path(path).parents] if folder.is_dir())


def _zygote_config(config: ExecutionConfig, plan: Plan, flavour: int, fds: list[int]) -> dict[str, Any]:
    """What a zygote is told; `fds` are its end of the control socket and then three for each slot."""
    readable = readable_paths(config)
    is_root = os.geteuid() == 0
    return {
        "control": fds[0],
        "namespaces": plan.namespaces,
        "landlock": plan.landlock,
        "seccomp": plan.seccomp,
        "uid": NOBODY if is_root else None,
        "keep_reading": is_root and not all(_open_to_others(path) for path in _module_path(config)),
        "readable": readable,
        "sys_path": _module_path(config),
        "preload": [*_USUAL, *FLAVOURS[flavour], *config.preload],
        "stack_bytes": _STACK_BYTES,
        "slots": [fds[at : at + 3] for at in range(1, len(fds), 3)],
        "first_slot_fd": _first_slot_fd(len(fds)),
        "limits": {
            "RLIMIT_AS": config.memory_limit_bytes + _INTERPRETER_BYTES,
            "RLIMIT_FSIZE": max(config.output_limit_bytes, _MIN_FILE_BYTES),
            "RLIMIT_NOFILE": _NUM_FILES,
            "RLIMIT_CORE": 0,
            "RLIMIT_MEMLOCK": 64 << 10,
            "RLIMIT_MSGQUEUE": 0,
        }
        # Elsewhere the kernel would count the user's other processes as well; forking is refused in any case.
        | ({"RLIMIT_NPROC": _NUM_THREADS + 64} if plan.namespaces else {}),
        "child_limits": {"RLIMIT_NPROC": _NUM_THREADS} if plan.namespaces else {},
    }


def _first_slot_fd(num_files: int) -> int:
    """Where the slots' files begin in a child: at the upper end, where no program looks.

    Raises:
        SandboxError: so few files may be open that there is no room.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most < _MIN_FILES:
        raise SandboxError(f"`ulimit -n` is {most}: the sandbox needs at least {_MIN_FILES} open files")
    return min(most, _NUM_FILES) - num_files - 8


class Slot:
    """The files through which one child at a time gets its job and answers.

    Raises:
        SandboxError: they could not be made.
    """

    def __init__(self) -> None:
        try:
            self.job_fd = os.memfd_create("job", os.MFD_CLOEXEC)
            self.output_fd = os.memfd_create("output", os.MFD_CLOEXEC)
            self.channel, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            raise SandboxError(f"no files for a sandbox (`ulimit -n` is {limit}): {error}") from None
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def fds(self) -> list[int]:
        """The child's side."""
        return [self.job_fd, self.output_fd, self.far.fileno()]

    def fill(self, job: bytes) -> None:
        """Empty the files and put the next job in.

        Raises:
            OSError: there is no memory for it.
        """
        for fd in (self.job_fd, self.output_fd):
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
        view = memoryview(job)
        while view:
            view = view[os.write(self.job_fd, view) :]

    def reset(self) -> None:
        """Undo what a child that has ended did to the slot: the next one must find it as new.

        Packets that were not read, on either side, and the flags of the files, which all children share.

        Raises:
            SandboxError: the slot is beyond repair (a program shut the socket down; no filter kept it from that).
        """
        for end in (self.channel, self.far):
            with contextlib.suppress(BlockingIOError):
                for _ in range(_MAX_PACKETS):
                    end.recv(1, socket.MSG_DONTWAIT)  # the rest of a packet, and files sent with it, are thrown away
                raise SandboxError("a program spoilt the socket that it shared with the next one")
        for fd in self.fds():
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR)

    def close(self) -> None:
        """Give the files back."""
        self.channel.close()
        self.far.close()
        os.close(self.job_fd)
        os.close(self.output_fd)


class ZygoteProcess:
    """A running zygote.

    Raises:
        RefusedError: a layer of the plan could not be put on.
        SandboxError: it did not start for another reason.
    """

    def __init__(self, config: ExecutionConfig, plan: Plan, flavour: int = 0) -> None:
        self.level = plan.level
        self.num_children = 0
        self.refusals: list[RefusedError] = []
        """Why layers are missing, if they are."""
        self._ended: dict[int, tuple[int, float, int]] = {}
        self.slots = [Slot(), Slot(), Slot()]
        self.control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            fds = [far.fileno(), *(fd for slot in self.slots for fd in slot.fds())]
            self._process = _spawn(_zygote_config(config, plan, flavour, fds), fds)
        try:
            message = self._first_message()
        except BaseException:
            self.close()
            raise
        self.layers: list[str] = message["ready"]

    def _first_message(self) -> dict[str, Any]:
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        if not poll.poll(_START_LIMIT_S * 1000):
            raise SandboxError(f"a zygote did not start within {_START_LIMIT_S:.0f} s")
        raw = self._receive()
        message = json.loads(raw[1:])
        if "refused" in message:
            raise RefusedError(message["refused"], message["why"])
        if "fault" in message:
            raise SandboxError(f"a zygote failed to start: {message['fault']}")
        return message

    def _receive(self) -> bytes:
        try:
            raw = self.control.recv(1 << 16)
        except OSError as error:
            raise SandboxError(f"the zygote is gone: {error}") from None
        if not raw:
            raise SandboxError("the zygote is gone")
        return raw

    def fork(self, slot: int) -> int:
        """Ask for a child that finds its job in this slot; its number."""
        self.num_children += 1
        try:
            self.control.send(zygote_script.REQUEST.pack(b"R", slot, self.num_children))
        except OSError as error:
            raise SandboxError(f"the zygote is gone: {error}") from None
        return self.num_children

    def kill(self, child: int) -> None:
        """Kill a child; its end is reported as any other."""
        with contextlib.suppress(OSError):
            self.control.send(zygote_script.REQUEST.pack(b"K", 0, child))

    def wait(self, limit_s: float, channel: socket.socket | None = None) -> None:
        """Wait for a report of the zygote, and read it, or for something on `channel`."""
        poll = select.poll()
        control_fd = self.control.fileno()
        poll.register(control_fd, select.POLLIN)
        if channel is not None:
            poll.register(channel, select.POLLIN)
        if any(fd == control_fd for fd, _event in poll.poll(limit_s * 1000)):
            self.read_report()

    def read_report(self) -> None:
        """Take one packet from the zygote (there must be one, or this waits)."""
        raw = self._receive()
        if raw[:1] == b"X":
            _kind, child, status, cpu_s, peak_bytes = zygote_script.EXIT.unpack(raw)
            self._ended[child] = (status, cpu_s, peak_bytes)
            return
        raise SandboxError(json.loads(raw[1:]).get("fault", "the zygote failed"))

    def ended(self, child: int) -> tuple[int, float, int] | None:
        """Wait status, CPU seconds and peak bytes of a child that has ended; None before."""
        return self._ended.pop(child, None)

    def missing(self, layer: str) -> str:
        """Why a layer is not on, and what would allow it."""
        for refused in self.refusals:
            if refused.layer == layer:
                return f"{refused.why}; {_REMEDIES[layer]}"
        return "switched off"

    def close(self) -> None:
        """End the zygote and everything in it."""
        self.control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._process.kill()
        self._process.wait()
        for slot in self.slots:
            slot.close()


def _spawn(config: dict[str, Any], fds: list[int]) -> subprocess.Popen[bytes]:
    """Start a fresh interpreter: never a fork of this process, whose memory may be a model."""
    base: str = sys._base_executable  # type: ignore[attr-defined]
    interpreter = base if os.access(base, os.X_OK) else sys.executable
    arguments = [interpreter, "-I", "-S", "-B", "-W", "ignore", "-X", "utf8"]
    environment = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
    return subprocess.Popen(
        [*arguments, zygote_script.__file__, json.dumps(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=fds,
        env=environment,
        cwd="/",
        start_new_session=True,
    )


def negotiate(config: ExecutionConfig) -> tuple[Plan, ZygoteProcess]:
    """The best plan that works on this machine, found by doing it, and a zygote that runs by it.

    Raises:
        SandboxError: the level that `config` asks for cannot be reached; the message names the missing pieces.
    """
    plan = Plan(*(layer in config.layers for layer in LAYERS))
    refusals: list[RefusedError] = []
    while LEVELS.index(plan.level) >= LEVELS.index(config.min_isolation):
        try:
            zygote = ZygoteProcess(config, plan)
            zygote.refusals = refusals
            return plan, zygote
        except RefusedError as refused:
            refusals.append(refused)
            if refused.layer not in LAYERS:
                break
            plan = replace(plan, **{refused.layer: False})
    raise SandboxError(_refusal(config, refusals))


def start(config: ExecutionConfig, plan: Plan, flavour: int = 0) -> ZygoteProcess:
    """A zygote by a plan that has worked before, with the modules of a flavour.

    Raises:
        SandboxError: it does not work any more.
    """
    try:
        return ZygoteProcess(config, plan, flavour)
    except RefusedError as refused:
        raise SandboxError(f"a layer that could be had before cannot be had now: {refused}") from None


def _refusal(config: ExecutionConfig, refusals: list[RefusedError]) -> str:
    reasons = [f"{refused}; {_REMEDIES.get(refused.layer, '')}" for refused in refusals]
    reasons += [f"{layer} is switched off by the config's `layers`" for layer in LAYERS if layer not in config.layers]
    return f"isolation level {config.min_isolation!r} cannot be reached: " + ". ".join(reasons)


@functools.cache
def _signal_names() -> dict[int, str]:
    return {item.value: item.name for item in signal.Signals}


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11, `signal 40` for a number without a name."""
    return _signal_names().get(number, f"signal {number}")
