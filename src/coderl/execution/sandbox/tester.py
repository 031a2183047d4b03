"""The code of one `AssertTest`, in a process that the program never enters. Standard library only.

The test's names that are not its own live with the program, in another process: it holds a `Remote` for each function
and object, and what it does with one is asked of the program's side and answered in plain data. So `f(x)`, `t.value`,
`T(1).get()`, `list(f(x))` and `except MyError` mean what they say, lists and dicts that a call changed are changed here
too, and every comparison with what is expected is made here. What the program would have to decide itself (whether two
objects of its own class are equal) is not believed: a test that passes only by that has no verdict, and says why.
"""

from __future__ import annotations

import ast
import builtins
import collections
import importlib
import json
from collections.abc import Callable
from typing import Any

_values: Any = None
"""The module `values`, given by the zygote."""
_ON_BUILTINS = ("isinstance", "issubclass", "type", "callable", "vars", "dir", "hasattr", "id")
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
_UNARY = ("neg", "pos", "invert", "abs", "len", "str", "repr", "int", "float", "complex", "round", "index", "bytes",
          "reversed", "next", "getitem", "setitem", "delitem", "iter", "bool", "format")  # fmt: skip
"""Operations whose method has their name, with or without other operands."""


def install(values: Any) -> None:
    """Give this module its sibling (both are loaded by path)."""
    global _values
    _values = values
    for kind in (Remote, Coroutine):
        values._ENCODERS[kind] = _encode_remote


def _encode_remote(value: Remote, _keep: object, _depth: int) -> Any:
    return {"t": "Opaque", "v": [value.__kind__, value.__number__]}


class CannotJudgeError(BaseException):
    """The test asks for something that only the program's own process could do."""


class Tester:
    """Runs the test and keeps the account of what it rests on."""

    def __init__(self, job: dict[str, Any], channel: Any, describe: Callable[[BaseException], dict[str, Any]]) -> None:
        self.job, self.channel, self._describe = job, channel, describe
        self.num_asked = 0
        self.why_not: str | None = None
        """What makes the test one that cannot be judged, whatever it says."""
        self.relied_on: str | None = None
        """What the program decided itself; a test that fails all the same is judged."""
        self.program_errors: list[tuple[BaseException, dict[str, Any]]] = []
        self._remotes: dict[int, Remote] = {}
        self._exceptions: dict[tuple[Any, ...], type[BaseException]] = {}
        self._arguments: list[Any] = []

    def run(self) -> None:
        """Report how the test ended: `passed`, `failed`, `raised` (by the program) or `unjudged`, with the error."""
        namespace = _Names(self)
        namespace["__name__"] = "test"
        if self.job["fn_name"]:
            namespace[self.job["fn_name"]] = self._remote(0, "function")
        error, caught = None, None
        try:
            tree = _AsCalls().visit(ast.parse(self.job["code"], "<test>"))
            exec(compile(ast.fix_missing_locations(tree), "<test>", "exec", dont_inherit=True), namespace)
        except BaseException as problem:
            caught, error = problem, self._describe(problem)
        described = [description for raised, description in self.program_errors if raised is caught]
        why_not = self.why_not or (self.relied_on if caught is None else None)
        if why_not:
            verdict, error = "unjudged", {"type": "CannotJudge", "message": f"the test {why_not}"[:500], "line": None}
        elif described:
            verdict, error = "raised", described[0]
        else:
            verdict = "passed" if caught is None else "failed"
        self.channel.send({"verdict": verdict, "error": error})

    def ask(self, op: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        """What the program's side answers, after the changes that it made to the arguments."""
        kwargs = kwargs or {}
        self.num_asked += 1
        request = {
            "ask": self.num_asked,
            "op": op,
            "args": [self._encode(value) for value in args],
            "kwargs": {key: self._encode(value) for key, value in kwargs.items()},
        }
        self.channel.send(request)
        answer = self.channel.receive()
        given = self._arguments = [*args, *kwargs.values()]
        for old, changed in zip(given, answer.get("args") or [], strict=False):
            if changed is not None:
                _update(old, _values.decode(changed, self.resolve))
        if answer.get("error"):
            raise self._rebuilt(answer["error"])
        return _values.decode(answer["value"], self.resolve)

    def _encode(self, value: Any) -> Any:
        return {"t": "type", "v": ["builtins", "type"]} if value is _type else _values.encode(value, self._refuse)

    def _refuse(self, value: object) -> None:
        raise self.cannot(f"hands an object of its own to the program: {type(value).__name__}")

    def cannot(self, why: str) -> CannotJudgeError:
        """Note why the test has no verdict, for a test may catch what is raised."""
        self.why_not = self.why_not or why
        return CannotJudgeError(why)

    def resolve(self, tag: str, content: Any, handle: Any) -> Any:
        """What stands here for an object of the program's."""
        if tag == "argument":
            return self._arguments[content]
        if tag == "ndarray":
            return importlib.import_module("numpy").array(_values.decode(content, self.resolve))
        if tag == "module":
            return importlib.import_module(str(content))
        if handle and handle[1]:
            return self._stand_in(handle[1])
        return self._remote(handle[0], str(content)) if handle else _values.Opaque(str(content))

    def _remote(self, number: int, kind: str) -> Remote:
        """One object here for one object there, so that `is` means the same."""
        if number not in self._remotes:
            self._remotes[number] = (Coroutine if kind == "coroutine" else Remote)(self, number, kind)
        return self._remotes[number]

    def _rebuilt(self, error: dict[str, Any]) -> BaseException:
        """The program's exception, so that a test may expect it by its class, its text and its attributes."""
        kind = self._stand_in(error.get("bases") or [])
        try:
            raised = kind(*_values.decode(error.get("args") or [], self.resolve))
        except Exception:
            raised = RuntimeError(str(error["message"]))
        if error.get("h") is not None and type(raised).__module__ == "program":
            raised.remote = self._remote(error["h"], kind.__name__)  # type: ignore[attr-defined]
        self.program_errors.append((raised, error))
        return raised

    def _stand_in(self, bases: list[Any]) -> type[BaseException]:
        """A class for the program's exception class: itself if it is a builtin one, else one of its name and bases."""
        if not bases:
            return RuntimeError
        key = tuple(json.dumps(base) for base in bases)
        if key not in self._exceptions:
            kind: Any = None
            if type(bases[0]) is not str:
                kind = _values.decode(bases[0])
            else:
                base = self._stand_in(bases[1:]) if bases[1:] else Exception
                kind = type(bases[0], (base,), {"__module__": "program", "__getattr__": _of_remote_exception})
            self._exceptions[key] = kind
        return self._exceptions[key]


def _of_remote_exception(error: BaseException, name: str) -> Any:
    if name == "remote" or name.startswith("__"):
        raise AttributeError(name)
    return getattr(error.remote, name)  # type: ignore[attr-defined]


class _Names(dict):
    """Globals of the test's code: what it does not define is the program's, a builtin, or a standard module."""

    def __init__(self, tester: Tester) -> None:
        super().__init__(__builtins__=builtins)
        self._tester = tester
        for name in _ON_BUILTINS:
            if name != "type":
                self[name] = _asked_of_remotes(tester, name)
        self["type"] = _type

    def __missing__(self, name: str) -> Any:
        if name in _BUILTIN_NAMES:
            raise KeyError(name)
        try:
            found = self._tester.ask("name", (name,))
            if _is_remote(found) and found.__kind__ in ("function", "type"):  # data may change, these hardly do
                self[name] = found
            return found
        except NameError:
            try:
                return importlib.import_module(name)
            except ImportError:
                raise KeyError(name) from None


_BUILTIN_NAMES = frozenset(dir(builtins))


class _type(type):  # noqa: N801
    """The builtin `type` to the test, but for objects of the program's."""

    def __new__(cls, *args: Any) -> Any:
        """The class of an object, or a new class."""
        if len(args) == 1 and type(args[0]) in (Remote, Coroutine):
            return args[0].__tester__.ask("type", args)
        return type(*args)


def _asked_of_remotes(tester: Tester, name: str) -> Callable[..., Any]:
    local = getattr(builtins, name)

    def function(*args: Any) -> Any:
        flat = [item for value in args for item in (value if type(value) is tuple else (value,))]
        if any(type(item) in (Remote, Coroutine) for item in flat):
            return tester.ask(name, args)
        return local(*[type if value is _type else value for value in args])

    return function


class _AsCalls(ast.NodeTransformer):
    """`x.__class__` as `type(x)`, for every object has one of its own: only the program knows."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Replace the attribute."""
        self.generic_visit(node)
        function = {"__class__": "type", "__dict__": "vars"}.get(node.attr)
        if function is None or not isinstance(node.ctx, ast.Load):
            return node
        return ast.Call(ast.Name(function, ast.Load()), [node.value], [])


class Remote:
    """An object that lives with the program."""

    __iter__: Callable[[], Any]

    def __init__(self, tester: Tester, number: int, kind: str) -> None:
        self.__dict__.update(__tester__=tester, __number__=number, __kind__=kind)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the program's function returns."""
        return self.__tester__.ask("call", (self, *args), kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in _SHOWN:
            raise AttributeError(name)
        return self.__tester__.ask("getattr", (self, name))

    def __setattr__(self, name: str, value: Any) -> None:
        self.__tester__.ask("setattr", (self, name, value))

    def __delattr__(self, name: str) -> None:
        self.__tester__.ask("delattr", (self, name))

    def __eq__(self, other: object) -> bool:
        return other is self or (_is_remote(other) and self._decided("eq", other))

    def __ne__(self, other: object) -> bool:
        return other is not self and (not _is_remote(other) or self._decided("ne", other))

    def __hash__(self) -> int:
        return self.__number__

    def __contains__(self, item: object) -> bool:
        if _is_remote(item) or not self.__tester__.ask("hasattr", (self, "__iter__")):
            return self._decided("contains", item)
        return any(value == item for value in self)

    def __enter__(self) -> Any:
        return self.__tester__.ask("enter", (self,))

    def __exit__(self, *error: object) -> Any:
        return self.__tester__.ask("exit", (self,))

    def __copy__(self) -> Any:
        return self.__tester__.ask("copy", (self,))

    def __deepcopy__(self, _memo: object) -> Any:
        return self.__tester__.ask("deepcopy", (self,))

    def __mro_entries__(self, _bases: tuple[type, ...]) -> tuple[type, ...]:
        raise self.__tester__.cannot(f"derives a class from the program's {self.__kind__}")

    def _decided(self, op: str, other: object) -> Any:
        tester = self.__tester__
        tester.relied_on = f"passes by what the program's own class {self.__kind__} says of its objects ({op})"
        return tester.ask(op, (self, other))


class Coroutine(Remote):
    """A coroutine of the program's: only its own process could await it."""

    def __await__(self) -> Any:
        raise self.__tester__.cannot("awaits a coroutine of the program's")

    def send(self, _value: Any = None) -> Any:
        """Refuse, as all do that a loop asks of a coroutine."""
        raise self.__tester__.cannot("awaits a coroutine of the program's")

    throw = send

    def close(self) -> None:
        """Do nothing."""


_SHOWN = ("__name__", "__qualname__", "__annotations__", "__wrapped__")


def _is_remote(value: object) -> bool:
    return type(value) in (Remote, Coroutine)


def _forward(op: str, *, is_reflected: bool = False) -> Callable[..., Any]:
    def method(self: Remote, *args: Any) -> Any:
        return self.__tester__.ask(op, (*args, self) if is_reflected else (self, *args))

    return method


def _decide(op: str) -> Callable[..., Any]:
    return lambda self, other: self._decided(op, other)


for _op in _BINARY:
    _name = f"{_op}_" if _op in ("and", "or") else _op
    setattr(Remote, f"__{_op}__", _forward(_name))
    setattr(Remote, f"__r{_op}__", _forward(_name, is_reflected=True))
    setattr(Remote, f"__i{_op}__", _forward(f"i{_op}"))
for _op in _UNARY:
    setattr(Remote, f"__{_op}__", _forward(_op))
Coroutine.__next__ = Coroutine.send  # type: ignore[attr-defined]
for _op in ("lt", "le", "gt", "ge"):
    setattr(Remote, f"__{_op}__", _decide(_op))


def _update(old: Any, new: Any) -> None:
    """Change a list, dict, set or other container into an equal of `new`, and so all that it holds."""
    if isinstance(old, list) and isinstance(new, list):
        for at in range(min(len(old), len(new))):
            old[at] = _merged(old[at], new[at])
        old[len(new) :] = new[len(old) :]
    elif isinstance(old, dict) and isinstance(new, dict):
        merged = {key: _merged(old[key], item) if key in old else item for key, item in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, bytearray | collections.deque):
        old.clear()
        old.extend(new)


def _merged(old: Any, new: Any) -> Any:
    """`old` itself, changed, where it is a container like `new`; else `new`."""
    if type(old) is type(new) and isinstance(old, list | dict | set):
        _update(old, new)
        return old
    return new
