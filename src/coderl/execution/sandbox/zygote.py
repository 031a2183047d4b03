"""The process that every program is forked from: isolates itself, warms modules, then forks on demand.

Runs as a script in an interpreter of its own (`python -I -S zygote.py CONFIG`), with the standard library only. It
never reads a job: job, output and messages go between parent and child through a slot (two files and a packet socket,
used by one child at a time), so that no program finds another program's text in its memory. Over its own socket:

    parent -> zygote   REQUEST: b"R", slot, number        run child `number` with the files of that slot
                       REQUEST: b"K", 0, number           kill it
    zygote -> parent   b"J" + JSON: {"ready": [layer, ...]} or {"refused": layer, "why": text} or {"fault": text}
                       EXIT: b"X", number, wait status, processor seconds, peak bytes
"""

from __future__ import annotations

import builtins
import contextlib
import importlib.util
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import traceback
import types
from typing import Any

if __name__ == "__main__":
    # What modules want done after a fork mends locks held by other threads, and there are none; it touches so many
    # pages that it would cost a child more than all the rest.
    os.register_at_fork = lambda **_hooks: None  # type: ignore[assignment]

EXIT = struct.Struct("=cIidQ")
REQUEST = struct.Struct("=cBI")
_PLACEHOLDER = 0x7FFFFFFF
"""Stands for the child's process id in the filter that is built ahead."""


def _sibling(folder: str, name: str) -> types.ModuleType:
    """Load a file of this folder by path: the package itself is not importable in here."""
    spec = importlib.util.spec_from_file_location(f"_sandbox_{name}", os.path.join(folder, f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Zygote:
    """Forks a child per request and reports how it ended."""

    def __init__(self, control: socket.socket, child: Any, layers: Any, filters: Any, config: dict[str, Any]) -> None:
        self.control, self.child, self.layers, self.config = control, child, layers, config
        self.slots: list[list[int]] = config["slots"]
        self.last_fd = max(map(max, self.slots))
        self.prelude = _prelude()
        self.filter = None
        if config["seccomp"]:
            program = filters.child_filter(_PLACEHOLDER)
            self.filter = layers.Filter(program, tuple(filters.pid_offsets(program, _PLACEHOLDER)))
        self.poll = select.poll()
        self.poll.register(control.fileno(), select.POLLIN)
        self.running: dict[int, tuple[int, int]] = {}
        """pidfd -> (number of the child, process id)"""
        self.scratch: int | None = None
        """The folder that programs may write to."""

    def serve(self) -> None:
        """Answer until the parent hangs up, then take every child along."""
        control_fd, wait = self.control.fileno(), self.poll.poll
        while True:
            for fd, _event in wait():
                if fd != control_fd:
                    self._reap(fd)
                elif not self._handle():
                    for _number, pid in self.running.values():
                        os.kill(pid, signal.SIGKILL)
                    return

    def _handle(self) -> bool:
        data = self.control.recv(64)
        if not data:
            return False
        kind, slot, number = REQUEST.unpack(data)
        if kind == b"R":
            self._fork(slot, number)
        else:
            for running, pid in self.running.values():
                if running == number:
                    os.kill(pid, signal.SIGKILL)
        return True

    def _fork(self, slot: int, number: int) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            _send(self.control, {"fault": f"fork failed: {error.strerror}"})
            return
        if pid == 0:
            self._become_child(slot)
        pidfd = os.pidfd_open(pid)
        self.running[pidfd] = (number, pid)
        self.poll.register(pidfd, select.POLLIN)

    def _become_child(self, slot: int) -> None:
        try:
            mine = self.slots[slot]
            os.closerange(3, mine[0])
            os.closerange(mine[-1] + 1, self.last_fd + 1)
            if not self.config["namespaces"]:  # else the kernel ends all others with the first of the PID namespace
                self.layers.die_with_parent()
                if os.getppid() != self.config["pid"]:
                    os._exit(1)
            self.layers.limit(self.config["child_limits"])  # lower than ours: a program leaves room for the next child
            if self.filter is not None:
                self.filter.load()
            self.child.main(*mine, self.prelude)
        finally:
            os._exit(1)

    def _reap(self, pidfd: int) -> None:
        number, pid = self.running.pop(pidfd)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        _pid, status, usage = os.wait4(pid, 0)
        cpu = usage.ru_utime + usage.ru_stime
        self.control.send(EXIT.pack(b"X", number, status, cpu, usage.ru_maxrss * 1024))
        if self.scratch is not None and not self.running:
            try:
                self.layers.empty(self.scratch)
            except (OSError, RecursionError):  # then a fresh zygote, with a fresh folder, is the remedy
                os._exit(4)


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    control.send(b"J" + json.dumps(message).encode("ascii"))


def _prelude() -> types.ModuleType:
    """The module `builtins` of a call-based program, with the names that such problems take for granted.

    It is made here, once: to add three hundred names in each child would cost as much as the rest of it.
    """
    source = """
import bisect, collections, copy, functools, heapq, itertools, math, operator, random, re, string, sys, time
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
"""
    names: dict[str, Any] = {}
    exec(source, names)
    names.pop("__builtins__")
    # `from math import *` hides the builtin; programs mean the builtin
    names.pop("pow", None)
    module = types.ModuleType("builtins", builtins.__doc__)
    module.__dict__.update(names | vars(builtins))
    return module


def _warm(modules: list[str]) -> None:
    random.seed(0)  # every program starts from the same state: verdicts repeat
    for name in modules:
        try:
            __import__(name)
        except ImportError:
            continue


def _finish_interpreter() -> None:
    """What `site` would have added, had this interpreter loaded it."""
    import _sitebuiltins
    import threading

    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    threading.stack_size(8 << 20)
    sys.set_int_max_str_digits(0)  # solutions older than the limit print longer numbers; the CPU limit bounds the cost


def _isolate(config: dict[str, Any], layers: Any, filters: Any, control: socket.socket) -> list[str]:
    """Put on every layer that the config asks for; the names of those in place.

    The order is forced: mounts need privileges, Landlock and seccomp need `no_new_privs`, and seccomp closes the door.
    """
    done = []
    try:
        done.append("namespaces")
        if config["namespaces"]:
            layers.pivot_to_read_only_root(config["readable"])
        else:
            done.pop()
            os.chdir("/")
        done.append("user")
        if config["uid"] is not None:
            layers.drop_to(config["uid"], config["keep_reading"])
            if config["namespaces"]:
                with contextlib.suppress(OSError):  # limits on processes are then shared between sandboxes
                    layers.own_user_namespace()
        if not config["keep_reading"]:
            layers.set_capabilities(0)
        layers.die_with_parent()
        layers.forbid_new_privileges()
        done.append("landlock")
        if config["landlock"]:
            layers.restrict_files(config["readable"], layers.SCRATCH if config["namespaces"] else None)
        else:
            done.pop()
        done.append("limits")
        layers.limit(config["limits"])
        layers.hide_from_debuggers()
        done.append("seccomp")
        if config["seccomp"]:
            layers.Filter(filters.zygote_filter(may_change_files=config["namespaces"])).load()
        else:
            done.pop()
    except (OSError, layers.LayerError, KeyError) as error:
        _send(control, {"refused": done[-1], "why": str(error)})
        os._exit(3)
    return done


def _enter(config: dict[str, Any], layers: Any, control: socket.socket) -> None:
    """Go into new namespaces; the process that returns is the first of its PID namespace."""
    try:
        layers.enter_namespaces()
        pid = os.fork()
    except OSError as error:
        _send(control, {"refused": "namespaces", "why": str(error)})
        os._exit(3)
    if pid:
        control.close()
        layers.die_with_parent()
        os.waitpid(pid, 0)
        os._exit(0)
    layers.die_with_parent()


def _move_slots(config: dict[str, Any]) -> None:
    """Put the slots' files where no program looks, and let them not be inherited any further."""
    place = config["first_slot_fd"]
    for fds in config["slots"]:
        for index, fd in enumerate(fds):
            os.dup2(fd, place, inheritable=False)
            os.close(fd)
            fds[index] = place
            place += 1


def main() -> None:
    """Isolate, warm, report, serve."""
    config = json.loads(sys.argv[1])
    control = socket.socket(fileno=config["control"])
    try:
        folder = os.path.dirname(os.path.abspath(__file__))
        layers, filters = _sibling(folder, "layers"), _sibling(folder, "seccomp")
        layers.grow_stack(config["stack_bytes"])
        layers.die_with_parent()
        _move_slots(config)
        child, values, *sides = (_sibling(folder, name) for name in ("child", "values", "tester", "witness"))
        child.install(values, *sides)
        for side in sides:
            side.install(values)
        sys.path[:] = config["sys_path"]
        _finish_interpreter()
        if config["namespaces"]:
            _enter(config, layers, control)
        _warm(config["preload"])
        config["pid"] = os.getpid()
        zygote = Zygote(control, child, layers, filters, config)
        done = _isolate(config, layers, filters, control)
        if config["namespaces"]:
            os.environ["TMPDIR"] = layers.SCRATCH
            zygote.scratch = os.open(layers.SCRATCH, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        child.warm()
        _send(control, {"ready": done, "pid": os.getpid()})
        zygote.serve()
    except BaseException:
        _send(control, {"fault": traceback.format_exc(limit=-3)[-1500:]})
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
