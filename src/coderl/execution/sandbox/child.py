"""What a forked child does with one program: read the job, run its tests, report. Standard library only.

Everything here shares a process with the untrusted program, so nothing here decides anything: the child prints to
file 1 and says which value a call returned, and the parent compares. A program that forges these messages gains
nothing, for the answer must still be right. Expected outputs are never in this process.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib
import io
import json
import marshal
import os
import resource
import socket
import sys
import threading
import time
import types
from typing import Any

PROGRAM = "<program>"
"""File name of the program in tracebacks."""
_INLINE_BYTES = 48 << 10
"""Larger messages travel as a file: a packet has a limit."""

# Bound now: a program may replace any of them for itself.
_write, _exit, _loads, _clock = os.write, os._exit, json.loads, time.process_time
_encode = json.JSONEncoder(separators=(",", ":")).encode
_HELLO = b'{"hello":1}'
_values: Any = None
"""The module `values`, given by the zygote: in here nothing of the package is importable."""


def install(values: Any) -> None:
    """Give this module its sibling (both are loaded by path)."""
    global _values
    _values = values


def main(file_fd: int, out_fd: int, channel_fd: int, prelude: dict[str, Any]) -> None:
    """Run the job in `file_fd` and end the process; never returns."""
    code = 1
    try:
        channel = Channel(channel_fd, out_fd)
        try:
            job = marshal.loads(os.pread(file_fd, os.lseek(file_fd, 0, os.SEEK_END), 0))
            resource.setrlimit(resource.RLIMIT_CPU, (int(job["cpu_s"]), int(job["cpu_s"]) + 1))
        except Exception as error:  # nothing of the program has run yet: this is a fault of the sandbox
            channel.send({"fault": _describe(error)["message"]})
            return
        _write(channel_fd, _HELLO)
        if job["kind"] == "judge":
            _Judge(job, channel).run()
            code = 0
        elif job["kind"] == "stdin":
            code = _run_stdin_tests(job, file_fd, channel)
        else:
            _open_standard_files("", file_fd, out_fd)
            _run_module_tests(job, channel, prelude)
            code = 0
    finally:
        _exit(code)


class Channel:
    """Packets to and from the parent; a long one is left in the output file and announced by its length."""

    def __init__(self, fd: int, out_fd: int) -> None:
        self.fd, self.out_fd = fd, out_fd

    def send(self, message: dict[str, Any]) -> bool:
        """Report; False where the program closed the channel."""
        raw = _encode(message).encode("ascii")
        try:
            if len(raw) > _INLINE_BYTES:
                raw = self._leave(raw)
            _write(self.fd, raw)
        except OSError:
            return False
        return True

    def _leave(self, raw: bytes) -> bytes:
        os.ftruncate(self.out_fd, 0)
        written = 0
        try:
            while written < len(raw):
                written += os.pwrite(self.out_fd, raw[written : written + (1 << 20)], written)
        except OSError:  # the file may not grow so far; the length alone tells the parent
            pass
        return b'{"file":%d}' % len(raw)

    def receive(self) -> dict[str, Any]:
        """One message from the parent; ends the process where the parent is gone."""
        with socket.socket(fileno=os.dup(self.fd)) as end:
            raw, fds, _flags, _address = socket.recv_fds(end, 1 << 17, 1)
        if not raw:
            _exit(1)
        if fds:
            raw = os.pread(fds[0], os.fstat(fds[0]).st_size, 0)
            os.close(fds[0])
        return _loads(raw)


def _describe(error: BaseException) -> dict[str, Any]:
    """Type, one line of text and program line of an exception, whatever its methods do."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == PROGRAM:
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename == PROGRAM:
        line = error.lineno
    name = type(error).__name__
    try:
        text = str(error.msg if isinstance(error, SyntaxError) else error)
    except BaseException:
        text = ""
    kind = "output_limit" if isinstance(error, OSError) and error.errno == 27 else name
    return {"type": kind[:100], "message": (f"{name}: {text}" if text else name)[:500], "line": line}


def _exit_code(error: SystemExit) -> int:
    code = error.code
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def _failure(error: BaseException) -> dict[str, Any] | None:
    """Description of what ended a program; None where it ended by asking for exit code 0."""
    if not isinstance(error, SystemExit):
        return _describe(error)
    code = _exit_code(error)
    return {"type": "exit", "message": f"exit code {code}", "line": None, "code": code} if code else None


def _compile(job: dict[str, Any], channel: Channel) -> types.CodeType | None:
    try:
        return compile(job["code"], PROGRAM, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        channel.send({"fatal": "compile", "error": _describe(error)})
        return None


def _run_before(before: str | None, namespace: dict[str, Any]) -> None:
    """Run what the data set puts before every program; the program's own lines keep their numbers."""
    if before:
        exec(compile(before, "<prelude>", "exec", dont_inherit=True), namespace)


# Programs that read standard input


def _run_stdin_tests(job: dict[str, Any], file_fd: int, channel: Channel) -> int:
    """Run each test as a script of its own; the exit code is the last one's, for a channel that the program closed."""
    code = _compile(job, channel)
    if code is None:
        return 1
    error = None
    for index, text in enumerate(job["tests"]):
        _open_standard_files(text, file_fd, channel.out_fd)
        error = _run_script(code, job.get("before"))
        if error is not None:
            channel.send({"test": index, "error": error, "cpu": _clock()})
            break
        try:
            end = os.lseek(channel.out_fd, 0, os.SEEK_END)
            _write(channel.fd, b'{"test":%d,"end":%d,"cpu":%.6f}' % (index, end, _clock()))
        except OSError:  # the program closed everything: its exit code has to do
            break
    return 0 if error is None else error.get("code", 1)


def _open_standard_files(text: str, file_fd: int, out_fd: int) -> None:
    """Fresh files 0 and 1 and fresh text objects over them: the program before may have closed or replaced both."""
    os.ftruncate(file_fd, 0)
    os.lseek(file_fd, 0, 0)
    view = memoryview(text.encode("utf-8", "surrogateescape"))
    while view:
        view = view[_write(file_fd, view) :]
    os.lseek(file_fd, 0, 0)
    os.dup2(file_fd, 0)
    os.dup2(out_fd, 1)
    sys.stdin, sys.stdout = _ready_files.pop() if _ready_files else (_text(0, "r"), _text(1, "w"))
    sys.__stdin__, sys.__stdout__ = sys.stdin, sys.stdout  # type: ignore[misc]
    sys.argv = ["program.py"]
    sys.setrecursionlimit(1000)


def _text(fd: int, mode: str) -> io.TextIOWrapper:
    file = io.TextIOWrapper(
        io.BufferedReader(io.FileIO(fd, "r", closefd=False))
        if mode == "r"
        else io.BufferedWriter(io.FileIO(fd, "w", closefd=False)),
        encoding="utf-8",
        errors="surrogateescape",
    )
    file.mode = mode  # type: ignore[misc]
    return file


def _run_script(code: types.CodeType, before: str | None = None) -> dict[str, Any] | None:
    """What `python program.py` would do, up to and including its end; None where it ends well."""
    module = types.ModuleType("__main__")
    module.__dict__.update(__builtins__=builtins, __file__="program.py")
    sys.modules["__main__"] = module
    stdout, error = sys.stdout, None
    try:
        _run_before(before, module.__dict__)
        exec(code, module.__dict__)
    except BaseException as caught:
        error = _failure(caught)
    if error is not None:  # settled, so whatever still runs is not waited for
        return error
    try:
        _finish_threads()
        atexit._run_exitfuncs()
        module.__dict__.clear()  # files that the program left open are written out now
        for file in (sys.stdout, stdout):
            if file is not None and not getattr(file, "closed", False):
                file.flush()
    except BaseException as caught:
        error = _failure(caught)
    return error


def _finish_threads() -> None:
    """Wait as the interpreter does at its end: for every thread that is not a daemon, then for executors."""
    sys.settrace(None)
    sys.setprofile(None)
    executors = sys.modules.get("concurrent.futures.thread")
    for hook in reversed(getattr(threading, "_threading_atexits", ())):
        hook()
    if executors is not None:
        executors._shutdown = False  # type: ignore[attr-defined]
    while waiting := [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]:
        for thread in waiting:
            thread.join()


# Programs whose functions are called


def _run_module_tests(job: dict[str, Any], channel: Channel, prelude: dict[str, Any]) -> None:
    code = _compile(job, channel)
    if code is None:
        return
    module = types.ModuleType("solution")
    module.__dict__["__builtins__"] = prelude if job.get("prelude") else builtins
    sys.modules["solution"] = module
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        _run_before(job.get("before"), module.__dict__)
        exec(code, module.__dict__)
    except BaseException as caught:
        error = _describe(caught) if not isinstance(caught, SystemExit) else _exit_while_loading(caught)
        channel.send({"fatal": "load", "error": error})
        return
    name = job.get("fn_name")
    if name and _find(module.__dict__, name) is None:
        error = {"type": "missing_function", "message": f"the program does not define {name}", "line": None}
        channel.send({"fatal": "missing", "error": error})
        return
    for index, test in enumerate(job["tests"]):
        os.ftruncate(channel.out_fd, 0)
        message = _run_module_test(test, module.__dict__, name or "", channel)
        if not channel.send({"test": index, **message, "cpu": _clock()}):
            return


def _exit_while_loading(error: SystemExit) -> dict[str, Any]:
    return {"type": "exit", "message": f"exit code {_exit_code(error)} while it was loaded", "line": None}


def _find(namespace: dict[str, Any], name: str) -> Any:
    """The function under test: of a fresh `Solution` object where there is one that has it, else of the module."""
    solution = namespace.get("Solution")
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    return namespace.get(name)


def _run_module_test(test: dict[str, Any], namespace: dict[str, Any], name: str, channel: Channel) -> dict[str, Any]:
    try:
        if "args" in test:
            result = _find(namespace, name)(*[_values.decode(argument) for argument in test["args"]])
        else:
            exec(compile(test["setup"], "<setup>", "exec", dont_inherit=True), namespace)
            if "expression" not in test:
                return _Server(namespace, name, channel).serve()
            result = eval(compile(test["expression"], "<test>", "eval", dont_inherit=True), namespace)
        return {"error": None, "value": _values.encode(result)}
    except SystemExit as caught:
        return {"error": _failure(caught) or {"type": "exit", "message": "exit code 0 inside a call", "line": None}}
    except BaseException as caught:
        return {"error": _describe(caught)}


class _Server:
    """Answers the calls that a judge makes from another process, until it has seen enough."""

    def __init__(self, namespace: dict[str, Any], name: str, channel: Channel) -> None:
        self.namespace, self.name, self.channel = namespace, name, channel
        self.kept: list[Any] = []

    def keep(self, value: object) -> int:
        self.kept.append(value)
        return len(self.kept) - 1

    def resolve(self, path: str) -> Any:
        if path.startswith("#"):
            return self.kept[int(path[1:])]
        first, *rest = path.split(".")
        value = self.namespace[first] if first in self.namespace else getattr(builtins, first)
        for attribute in rest:
            value = getattr(value, attribute)
        return value

    def serve(self) -> dict[str, Any]:
        while True:
            request = self.channel.receive()
            if "end" in request:
                return {"error": None, "value": None}
            if not self.channel.send({"answer": request["call"], **self.answer(request)}):
                _exit(1)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            path = request["path"]
            function = _find(self.namespace, path) if path == self.name else self.resolve(path)
            args = _values.decode(request["args"], self.resolve)
            kwargs = {key: _values.decode(value, self.resolve) for key, value in request["kwargs"].items()}
            return {"error": None, "value": _values.encode(function(*args, **kwargs), self.keep)}
        except SystemExit as caught:
            return {"error": {"type": "exit", "message": f"exit code {_exit_code(caught)} inside a call", "line": None}}
        except BaseException as caught:
            return {"error": _describe(caught)}


# The test's own code, in a process that the program never enters


class _Judge:
    """Runs the code of one `AssertTest`; the function under test is a stub that asks the parent."""

    def __init__(self, job: dict[str, Any], channel: Channel) -> None:
        self.job, self.channel, self.calls = job, channel, 0
        self.program_error: BaseException | None = None
        self.program_description: Any = None

    def run(self) -> None:
        """Report how the assertions ended: `passed`, `failed` (with the error), or `raised` (by the program)."""
        namespace = _JudgeNames(self)
        namespace["__name__"] = "judge"
        if self.job["fn_name"]:
            namespace[self.job["fn_name"]] = _values.Remote(self.job["fn_name"], self.call)
        try:
            exec(compile(self.job["code"], "<test>", "exec", dont_inherit=True), namespace)
        except BaseException as caught:
            is_programs = caught is self.program_error
            error = self.program_description if is_programs else _describe(caught)
            self.channel.send({"verdict": "raised" if is_programs else "failed", "error": error})
            return
        self.channel.send({"verdict": "passed", "error": None})

    def call(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the program's function returns for these arguments."""
        self.calls += 1
        request = {
            "call": self.calls,
            "path": path,
            "args": [_values.encode(value) for value in args],
            "kwargs": {key: _values.encode(value) for key, value in kwargs.items()},
        }
        self.channel.send(request)
        answer = self.channel.receive()
        if answer.get("error"):
            self.program_description = answer["error"]
            self.program_error = _rebuild(answer["error"])
            raise self.program_error
        return _values.decode(answer["value"])


def _rebuild(error: dict[str, Any]) -> BaseException:
    """A builtin exception of the name that the program raised, so that a test may expect it."""
    kind = getattr(builtins, str(error["type"]), RuntimeError)
    is_exception = isinstance(kind, type) and issubclass(kind, Exception)
    try:
        return (kind if is_exception else RuntimeError)(str(error["message"]))
    except TypeError:
        return RuntimeError(str(error["message"]))


class _JudgeNames(dict):
    """Globals of the test's code: what it does not define is a module of the standard library or lives remotely."""

    def __init__(self, judge: _Judge) -> None:
        super().__init__(__builtins__=builtins)
        self._judge = judge

    def __missing__(self, name: str) -> Any:
        if name in _BUILTIN_NAMES:
            raise KeyError(name)
        if name in sys.stdlib_module_names:
            return importlib.import_module(name)
        return _values.Remote(name, self._judge.call)


_BUILTIN_NAMES = frozenset(dir(builtins))


_ready_files: list[tuple[io.TextIOWrapper, io.TextIOWrapper]] = []
"""Text objects over files 0 and 1 for the first test: making them touches many pages."""


def warm() -> None:
    """Do ahead what every child needs; then freeze it out of the collector's sight."""
    _describe(ValueError("warm"))
    _ready_files.append((_text(0, "r"), _text(1, "w")))
    gc.collect()
    gc.freeze()
