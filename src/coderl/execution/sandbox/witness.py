"""The program's side of a tester: does what it asks of functions and objects, and answers in plain data.

It shares a process with the program and decides nothing; see `tester`. Standard library only.
"""

from __future__ import annotations

import abc
import builtins
import collections
import copy
import importlib
import json
import operator
from collections.abc import Callable
from typing import Any

_values: Any = None
"""The module `values`, given by the zygote."""
_encode = json.JSONEncoder(separators=(",", ":")).encode


def install(values: Any) -> None:
    """Give this module its sibling (both are loaded by path)."""
    global _values
    _values = values


class Witness:
    """Answers until the tester has seen enough; `describe` says what is sent of an exception."""

    def __init__(
        self,
        namespace: dict[str, Any],
        function: Any,
        channel: Any,
        describe: Callable[[BaseException], dict[str, Any]],
    ) -> None:
        self.namespace, self.channel, self._describe = namespace, channel, describe
        self.kept: list[Any] = [function]
        self.numbers: dict[int, int] = {id(self.kept[0]): 0}

    def keep(self, value: object) -> list[Any]:
        """The number that the tester may name `value` by, and its bases where it is a class of exceptions."""
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.kept)
            self.kept.append(value)
        is_exception = isinstance(value, type) and issubclass(value, BaseException)
        return [self.numbers[id(value)], _bases(value) if is_exception else None]

    def resolve(self, tag: str, content: Any, _handle: Any) -> Any:
        """The object that the tester names."""
        if tag == "ndarray":
            return importlib.import_module("numpy").array(_values.decode(content, self.resolve))
        if tag != "Opaque":
            raise ValueError(tag)
        return self.kept[content[1]]

    def serve(self) -> dict[str, Any]:
        """Answer each question; what to report of the test in the end."""
        while True:
            request = self.channel.receive()
            if "end" in request:
                return {"error": None, "value": None}
            if not self.channel.send({"answer": request["ask"], **self.answer(request)}):
                return {"error": {"type": "exit", "message": "the tester is gone", "line": None}}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What an operation gave, and the arguments that it changed."""
        arguments: list[Any] = []
        before: list[Any] = []
        try:
            args = [_values.decode(value, self.resolve) for value in request["args"]]
            kwargs = {key: _values.decode(value, self.resolve) for key, value in request["kwargs"].items()}
            arguments = [*args, *kwargs.values()]
            before = [_encode(_values.encode(value)) if type(value) in _CHANGEABLE else None for value in arguments]
            result = self.operation(request["op"])(*args, **kwargs)
            same = [n for n, value in enumerate(arguments) if value is result and type(value) in _CHANGEABLE]
            answer = {"error": None, "value": {"t": "argument", "v": same[0]} if same else self.encode(result)}
        except BaseException as caught:
            answer = {"error": self.describe(caught)}
        changed = [
            None if was is None or was == _encode(_values.encode(value)) else self.encode(value)
            for was, value in zip(before, arguments, strict=False)
        ]
        return answer | ({"args": changed} if any(value is not None for value in changed) else {})

    def encode(self, value: Any) -> Any:
        """The value, or a number for an object that stays here."""
        return _values.encode(value, self.keep)

    def operation(self, op: str) -> Any:
        """The function of that name, ours or of the standard library.

        Raises:
            ValueError: there is none.
        """
        own = {"name": self.name, "call": _call, "isinstance": _is_instance, "enter": _enter, "exit": _exit_context}
        for place in (own, vars(operator), vars(copy), vars(builtins)):
            if op in place:
                return place[op]
        raise ValueError(op)

    def name(self, name: str) -> Any:
        """What the program calls so.

        Raises:
            NameError: nothing.
        """
        if name in self.namespace:
            return self.namespace[name]
        raise NameError(name)

    def describe(self, error: BaseException) -> dict[str, Any]:
        """What is known of an exception, with what a test may ask of it."""
        return self._describe(error) | {
            "bases": _bases(type(error)),
            "args": self.encode(list(error.args)),
            "h": self.keep(error)[0],
        }


_CHANGEABLE = (list, dict, set, bytearray, collections.deque, collections.OrderedDict, collections.defaultdict,
               collections.Counter)  # fmt: skip


def _call(function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _enter(context: Any) -> Any:
    return type(context).__enter__(context)


def _exit_context(context: Any) -> Any:
    return type(context).__exit__(context, None, None, None)


def _is_instance(value: object, kinds: Any) -> bool:
    """By the classes that the value really has, not by what a metaclass says."""
    own = type.__dict__["__mro__"].__get__(type(value))
    listed = kinds if isinstance(kinds, tuple) else (kinds,)
    return any(kind in own or (type(kind) in (abc.ABCMeta,) and isinstance(value, kind)) for kind in listed)


def _bases(kind: Any) -> list[Any]:
    """An exception class and its bases, from the nearest to `Exception`: a program's by name, others as they are."""
    names: list[Any] = []
    for base in type.__dict__["__mro__"].__get__(kind):
        encoded = _values.encode(base)
        names.append(encoded if encoded["t"] == "type" else _values.type_name(base))
        if encoded["t"] == "type":
            break
    return names
