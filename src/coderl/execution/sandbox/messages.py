"""What a child may say, checked: a program shares the channel with our own code and can write anything on it.

    {"hello": 1}                                           the child is up; nothing of the program has run
    {"fault": text}                                        or it is not
    {"fatal": "compile" | "missing" | "load", "error": E}  no test of this program can run
    {"test": n, "end": bytes, "cpu": s}                    a script ended well, and printed so far into its file
    {"test": n, "error": E | null, "value": V, "values": [V...], "cpu": s}
    {"answer": n, "error": E | null, "value": V, "args": [V...]}
    {"verdict": "passed" | "failed" | "raised" | "unjudged", "error": E | null}       (a tester; see `tester`)
    {"ask": n, "op": text, "args": [V...], "kwargs": {text: V}}

E is {"type": text, "message": text, "line": n | null, ...}. The program is behind all but the last two; whatever is not
as above is forged, and a forged message is the program's fault.
"""

from __future__ import annotations

import math
from typing import Any

from coderl.execution.sandbox.values import MalformedError, loads

MAX_PARTS = 1 << 20
"""Of one message, where nothing says how many its answer may have."""
_MAX_LINE = 1 << 24
_FATAL = ("compile", "missing", "load")


class TooLargeError(MalformedError):
    """A message with more parts than any right answer has."""


def read(raw: bytes, max_parts: int = MAX_PARTS) -> dict[str, Any]:
    """The message in `raw`.

    Raises:
        TooLargeError: it has more parts than it may.
        MalformedError: it is not one that our own code sends.
    """
    # Counted before they are made: what a list of ten million lists takes in memory is thirty times its text.
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > max_parts:
        raise TooLargeError(f"a message of more than {max_parts} parts")
    message = loads(raw)
    for name, value in message.items():
        is_right = _FIELDS.get(name)
        if is_right is not None and not is_right(value):
            raise MalformedError(f"{name} = {str(value)[:80]}")
    if "fatal" in message and not message.get("error"):
        raise MalformedError("a program does not load, and no error says why")
    return message


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _is_error(value: object) -> bool:
    if value is None:
        return True
    if type(value) is not dict or type(value.get("type")) is not str or type(value.get("message")) is not str:
        return False
    line = value.get("line")
    return line is None or (type(line) is int and 0 < line < _MAX_LINE)


_FIELDS = {
    "fatal": lambda value: value in _FATAL,
    "fault": lambda value: type(value) is str,
    "error": _is_error,
    "test": _is_count,
    "answer": _is_count,
    "end": _is_count,
    "file": _is_count,
    "cpu": lambda value: type(value) is float and math.isfinite(value) and value >= 0,
    "values": lambda value: type(value) is list,
    "args": lambda value: type(value) is list,
}
