"""What a forked child does with one program: read the job, run its tests, report. Standard library only.

Everything here shares a process with the untrusted program, so nothing here decides anything: the child prints to
file 1 and says which value a call returned, and the parent compares. A program that forges these messages gains
nothing, for the answer must still be right. Expected outputs are never in this process.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
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
_DEEP = 10_000
"""Frames that our own code may take to read a nested value."""

# Bound now: a program may replace any of them for itself.
_write, _exit, _loads, _clock, _collect = os.write, os._exit, json.loads, time.process_time, gc.collect
_encode = json.JSONEncoder(separators=(",", ":")).encode
_HELLO = b'{"hello":1}'
_values: Any = None
_tester: Any = None
_witness: Any = None
"""The modules of these names, given by the zygote: in here nothing of the package is importable."""


def install(values: Any, tester: Any, witness: Any) -> None:
    """Give this module its siblings (all are loaded by path), and all programs to come their `open`."""
    global _values, _tester, _witness
    _values, _tester, _witness = values, tester, witness
    _open_streams_too.__name__ = _open_streams_too.__qualname__ = "open"
    builtins.open = io.open = _open_streams_too  # type: ignore[assignment]


def main(file_fd: int, out_fd: int, channel_fd: int, prelude: types.ModuleType) -> None:
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
        if job["kind"] == "tester":
            _tester.Tester(job, channel, _describe).run()
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
        self._end: socket.socket | None = None

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
        if self._end is None:
            self._end = socket.socket(fileno=os.dup(self.fd))
        raw, fds, _flags, _address = socket.recv_fds(self._end, 1 << 17, 1)
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
        return compile(job["code"].removeprefix("\ufeff"), PROGRAM, "exec", dont_inherit=True)
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
        error = _run_script(code, job["code"], job.get("before"))
        try:
            end = os.lseek(channel.out_fd, 0, os.SEEK_END)
            if error is None:
                _write(channel.fd, b'{"test":%d,"end":%d,"cpu":%.6f}' % (index, end, _clock()))
            else:
                channel.send({"test": index, "error": error, "end": end, "cpu": _clock()})
        except OSError:  # the program closed everything: its exit code has to do
            break
        if error is not None and not job["goes_on"]:
            break
    return 0 if error is None else error.get("code", 1)


def _open_standard_files(text: str, file_fd: int, out_fd: int) -> None:
    """Fresh files 0 and 1 and fresh text objects over them: the program before may have closed or replaced both."""
    os.ftruncate(file_fd, 0)
    os.lseek(file_fd, 0, 0)
    view = memoryview(text.encode("utf-8"))
    while view:
        view = view[_write(file_fd, view) :]
    os.lseek(file_fd, 0, 0)
    os.dup2(file_fd, 0)
    os.dup2(out_fd, 1)
    sys.stdin, sys.stdout = _ready_files.pop() if _ready_files else (_text(0, "r"), _text(1, "w"))
    sys.__stdin__, sys.__stdout__ = sys.stdin, sys.stdout  # type: ignore[misc]
    sys.argv = ["program.py"]


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


_open = open
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


def _open_streams_too(file: Any, *args: Any, **kwargs: Any) -> Any:
    """The builtin `open`, and for the three names of the standard streams a duplicate: /proc shows no files here."""
    number = _STREAMS.get(file) if isinstance(file, str) else None
    return _open(file if number is None else os.dup(number), *args, **kwargs)


def _source_file(code: str) -> str:
    """What `__file__` says; the file is written for the few programs that ask for it, where files can be written."""
    folder = os.environ.get("TMPDIR")
    if "__file__" not in code or not folder:
        return "program.py"
    path = f"{folder}/program.py"
    with contextlib.suppress(OSError), open(path, "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(code)
    return path


def _limit_recursion(num_between: int) -> None:
    """Leave the program as many frames as a script has, whatever lies below it here and between the two."""
    depth, frame = num_between, sys._getframe(1)
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(1000 + depth)


def _run_script(code: types.CodeType, text: str, before: str | None = None) -> dict[str, Any] | None:
    """What `python program.py` would do, up to and including its end; None where it ends well.

    The end is the interpreter's: threads are waited for, exit functions run, the standard streams are flushed, and only
    then objects go. What they raise on their way counts as little as there.
    """
    sys.modules["__main__"] = module = types.ModuleType("__main__")
    module.__dict__.update(__builtins__=builtins, __file__=_source_file(text))
    stdout, error = sys.stdout, None
    try:
        _run_before(before, module.__dict__)
        _limit_recursion(1)
        exec(code, module.__dict__)
    except BaseException as caught:
        error = _failure(caught)
    try:
        if error is None:  # else it is settled, and whatever still runs is not waited for
            _finish_threads()
            atexit._run_exitfuncs()
        if not _is_closed(sys.stdout):
            sys.stdout.flush()
    except BaseException as caught:
        error = error or _failure(caught)
    try:
        for file in _open_files():  # the collector would close what lies below a file before the file
            with contextlib.suppress(Exception):
                file.flush()
        if "__del__" in text:  # functions hold on to the module, so that it goes with the collector
            sys.modules["__main__"] = types.ModuleType("__main__")
            del module
            _collect()
        if not _is_closed(stdout):
            stdout.flush()
    except BaseException:
        pass
    return error


def _open_files() -> list[Any]:
    """Files that can be written to, those first that lie above others."""
    kinds = [io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom]
    files = [file for file in gc.get_objects() if type(file) in kinds and not _is_closed(file)]
    return sorted(files, key=lambda file: kinds.index(type(file)))


def _is_closed(file: Any) -> bool:
    """As the interpreter asks before it flushes: what cannot say so is not closed."""
    try:
        return file is None or bool(file.closed)
    except Exception:
        return False


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


def _run_module_tests(job: dict[str, Any], channel: Channel, prelude: types.ModuleType) -> None:
    code = _compile(job, channel)
    if code is None:
        return
    module = types.ModuleType("solution")
    module.__dict__.update(__builtins__=builtins, __file__=_source_file(job["code"]))
    sys.modules["solution"] = module
    sys.modules["__main__"] = types.ModuleType("__main__")
    if job.get("prelude"):
        module.__dict__["__builtins__"] = sys.modules["builtins"] = prelude
    try:
        _run_before(job.get("before"), module.__dict__)
        _limit_recursion(3)
        exec(code, module.__dict__)
    except BaseException as caught:
        error = _describe(caught) if not isinstance(caught, SystemExit) else _exit_while_loading(caught)
        channel.send({"fatal": "load", "error": error})
        return
    name = job.get("fn_name")
    if name and not _has(module.__dict__, name):
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


def _has(namespace: dict[str, Any], name: str) -> bool:
    solution = namespace.get("Solution")
    return (isinstance(solution, type) and hasattr(solution, name)) or namespace.get(name) is not None


def _find(namespace: dict[str, Any], name: str) -> Any:
    """The function under test: of a fresh `Solution` object where there is one that has it, else of the module."""
    solution = namespace.get("Solution")
    if not isinstance(solution, type) or not hasattr(solution, name):
        return namespace.get(name)
    try:
        return getattr(solution(), name)
    except TypeError as error:
        trace = error.__traceback__
        if trace is not None and trace.tb_next is not None:  # raised by its own code
            raise
        return getattr(object.__new__(solution), name)  # it asks for arguments that no judge has


def _run_module_test(test: dict[str, Any], namespace: dict[str, Any], name: str, channel: Channel) -> dict[str, Any]:
    """What one test gives: a value, or one for each expression that the test computes."""
    values: list[Any] = []
    error = None
    try:
        if "args" in test:
            result = _find(namespace, name)(*[_values.decode(argument) for argument in test["args"]])
            return {"error": None, "value": _encoded(result)}
        exec(compile(test["setup"], "<setup>", "exec", dont_inherit=True), namespace)
        if "code" in test:
            exec(compile(test["code"], "<test>", "exec", dont_inherit=True), namespace)
            return {"error": None, "value": True}
        if "expressions" not in test:
            return _witness.Witness(namespace, _find(namespace, name), channel, _of_call).serve()
        for expression in test["expressions"]:
            values.append(_encoded(eval(compile(expression, "<test>", "eval", dont_inherit=True), namespace)))
    except BaseException as caught:
        error = _of_call(caught)
        if _is_of_test(caught):
            error["type"] = "assertion"
    return {"error": error, "values": values}


def _of_call(error: BaseException) -> dict[str, Any]:
    """Description of what ended a call; an exit is one there, whatever its code."""
    if isinstance(error, SystemExit):
        return {"type": "exit", "message": f"exit code {_exit_code(error)} inside a call", "line": None}
    return _describe(error)


def _encoded(value: Any) -> Any:
    """A value for the parent, however low the program set the limit of recursion."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _DEEP))
    try:
        return _values.encode(value)
    finally:
        sys.setrecursionlimit(limit)


def _is_of_test(error: BaseException) -> bool:
    """Whether it arose in the test's own code, as where its assertion fails, and not in the program's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename == "<test>"


_ready_files: list[tuple[io.TextIOWrapper, io.TextIOWrapper]] = []
"""Text objects over files 0 and 1 for the first test: making them touches many pages."""


def warm() -> None:
    """Do ahead what every child needs; then freeze it out of the collector's sight."""
    _describe(ValueError("warm"))
    _ready_files.append((_text(0, "r"), _text(1, "w")))
    gc.collect()
    gc.freeze()
