"""Python values as plain JSON and back: what may cross the sandbox's border. Standard library only.

A value crosses as the builtin value that it equals: a subclass of int, an IntEnum, a namedtuple or a numpy scalar
arrives as an int, a tuple or a float, read by the builtin's own methods and not by those of the program's class. Any
other object arrives as the name of its type. Lists, strings, floats, booleans and None are themselves in JSON; all
other values are a JSON object with a tag. Decoding runs no code of the program and never unpickles; what it takes is
linear in the length of the JSON, whatever a program may have written there.
"""

from __future__ import annotations

import collections
import json
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

_SCALARS = frozenset({str, float, bool, type(None)})
_JSON_INT = 1 << 62
MAX_DEPTH = 200
_MAX_DIGITS = 1 << 14
"""Of a Decimal or of either part of a Fraction: to compare two of them may take the square of their lengths."""
_MAX_ALIKE = 64
"""Keys or members of one hash: honest values hardly have two, and a set takes the square of their number to build."""


class Opaque:
    """Stands for an object that cannot cross; equal to nothing but itself."""

    def __init__(self, type_name: str, handle: int | None = None) -> None:
        self.type_name = type_name
        self.handle = handle
        """Where the sender kept the object, so that it can be named in a later message."""

    def __repr__(self) -> str:
        return f"<{self.type_name} object>"


class Array(list):
    """Stands for a numpy array where there is no numpy: nested lists, which `judge` takes for a list."""

    def __eq__(self, other: object) -> bool:
        """Whether the one element equals the other's, as numpy has it.

        Raises:
            ValueError: there is more than one, so that the comparison is an array and not a truth.
        """
        mine = _flattened(self)
        if len(mine) != 1:
            raise ValueError("The truth value of an array with more than one element is ambiguous")
        return mine == _flattened(other)

    __hash__ = None  # type: ignore[assignment]


def _flattened(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in _flattened(item)] if isinstance(value, list | tuple) else [value]


Keep = Callable[[object], Any]
"""Holds on to an object that cannot cross; what it returns is sent along, for the object to be named by later."""


def _forget(_value: object) -> None:
    return None


def encode(value: Any, keep: Keep = _forget, depth: int = 0) -> Any:
    """JSON-able form of `value`."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is int:
        return value if -_JSON_INT < value < _JSON_INT else {"t": "int", "v": hex(value)}
    if depth > MAX_DEPTH:
        return {"t": "opaque", "v": f"{kind.__name__} nested too deeply"}
    if kind is list:
        return _encode_items(value, keep, depth)
    for base in _bases_of(kind):
        encoder = _ENCODERS.get(base)
        if encoder is not None:
            return encoder(value, keep, depth + 1)
        if base.__module__ in _LATE_MODULES:
            encoder = _LATE_ENCODERS.get(f"{base.__module__}.{base.__name__}")
            if encoder is not None and base is getattr(sys.modules.get(base.__module__), base.__name__, None):
                return encoder(value, keep, depth + 1)
    return _opaque(value, keep)


def is_too_deep(value: Any) -> bool:
    """Return whether a value of a test is nested more deeply than `encode` goes; a test of it cannot be judged."""
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            return True
        inside = [dict.items(v) if isinstance(v, dict) else v for v in level if isinstance(v, _CONTAINERS)]
        has_plain_lists = all(type(v) is list for v in level if isinstance(v, _CONTAINERS))
        depth += 1 if has_plain_lists else 2
        level = [item for items in inside for item in items]
    return False


_CONTAINERS = (list, tuple, dict, set, frozenset)
_bases_of = type.__dict__["__mro__"].__get__
_name_of = type.__dict__["__name__"].__get__


def _opaque(value: object, keep: Keep) -> dict[str, Any]:
    return {"t": "opaque", "v": type_name(type(value)), "h": keep(value)}


def type_name(kind: type) -> str:
    """The name of a class, whatever its metaclass says."""
    return str.__str__(_name_of(kind))[:200]


def _encode_items(values: Iterable[Any], keep: Keep, depth: int) -> list[Any]:
    items = list(values)
    if _SCALARS.issuperset(map(type, items)):
        return items
    return [encode(item, keep, depth + 1) for item in items]


def _sequence(tag: str, items_of: Callable[[Any], Iterable[Any]]) -> Callable[[Any, Keep, int], Any]:
    return lambda value, keep, depth: {"t": tag, "v": _encode_items(items_of(value), keep, depth)}


def _mapping(tag: str, items_of: Callable[[Any], Iterable[tuple[Any, Any]]]) -> Callable[[Any, Keep, int], Any]:
    def encoder(value: Any, keep: Keep, depth: int) -> Any:
        pairs = [[encode(key, keep, depth), encode(item, keep, depth)] for key, item in items_of(value)]
        return {"t": tag, "v": pairs}

    return encoder


def _text(tag: str, text_of: Callable[[Any], Any]) -> Callable[[Any, Keep, int], Any]:
    return lambda value, _keep, _depth: {"t": tag, "v": text_of(value)}


def _encode_type(value: type, keep: Keep, _depth: int) -> Any:
    """Builtin types and those of the standard library cross by name; a program's own class stays where it is."""
    module, name = value.__module__, value.__qualname__
    if module in sys.stdlib_module_names and getattr(sys.modules.get(module), name, None) is value:
        return {"t": "type", "v": [module, name]}
    named = [other for other, kind in vars(types).items() if kind is value]
    return {"t": "type", "v": ["types", named[0]]} if named else _opaque(value, keep)


_ENCODERS: dict[type, Callable[[Any, Keep, int], Any]] = {
    int: lambda value, keep, depth: encode(int.__int__(value), keep, depth),
    float: lambda value, _keep, _depth: float.__float__(value),
    str: lambda value, _keep, _depth: str.__str__(value),
    list: lambda value, keep, depth: _encode_items(list.__iter__(value), keep, depth),
    tuple: _sequence("tuple", tuple.__iter__),
    set: _sequence("set", set.__iter__),
    frozenset: _sequence("frozenset", frozenset.__iter__),
    collections.deque: _sequence("deque", collections.deque.__iter__),
    dict: _mapping("dict", dict.items),
    collections.OrderedDict: _mapping("OrderedDict", collections.OrderedDict.items),
    collections.defaultdict: _mapping("defaultdict", dict.items),
    collections.Counter: _mapping("Counter", dict.items),
    type({}.keys()): _sequence("dict_keys", iter),
    type({}.values()): _sequence("dict_values", iter),
    type({}.items()): _sequence("dict_items", iter),
    bytes: _text("bytes", bytes.hex),
    bytearray: _text("bytearray", bytearray.hex),
    complex: _text("complex", lambda value: [complex.__complex__(value).real, complex.__complex__(value).imag]),
    range: lambda value, keep, depth: {
        "t": "range",
        "v": [encode(part, keep, depth) for part in (value.start, value.stop, value.step)],
    },
    slice: lambda value, keep, depth: {
        "t": "slice",
        "v": [encode(part, keep, depth) for part in (value.start, value.stop, value.step)],
    },
    type(...): lambda _value, _keep, _depth: {"t": "Ellipsis", "v": None},
    type: _encode_type,
    type(sys): lambda value, _keep, _depth: {"t": "module", "v": str(value.__name__)},
    Opaque: lambda value, _keep, _depth: {"t": "Opaque", "v": [value.type_name, value.handle]},
}


def _encode_numpy(value: Any, keep: Keep, depth: int) -> Any:
    item = value.item()
    return _opaque(value, keep) if type(item) is type(value) else encode(item, keep, depth)


def _encode_array(value: Any, keep: Keep, depth: int) -> Any:
    items = value.tolist()
    if not isinstance(items, list):  # of no dimension: equal to its one number
        return encode(items, keep, depth)
    return {"t": "ndarray", "v": _encode_items(items, keep, depth)}


def _encode_decimal(value: Any, keep: Keep, _depth: int) -> Any:
    text = sys.modules["decimal"].Decimal.__str__(value)
    return {"t": "Decimal", "v": text} if len(text) < _MAX_DIGITS else _opaque(value, keep)


def _encode_fraction(value: Any, keep: Keep, _depth: int) -> Any:
    parts = [hex(value.numerator), hex(value.denominator)]
    return {"t": "Fraction", "v": parts} if max(map(len, parts)) < _MAX_DIGITS else _opaque(value, keep)


_LATE_ENCODERS: dict[str, Callable[[Any, Keep, int], Any]] = {
    "decimal.Decimal": _encode_decimal,
    "fractions.Fraction": _encode_fraction,
    "datetime.datetime": _text("datetime", lambda value: value.isoformat()),
    "datetime.date": _text("date", lambda value: value.isoformat()),
    "datetime.time": _text("time", lambda value: value.isoformat()),
    "datetime.timedelta": _text("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    "numpy.generic": _encode_numpy,
    "numpy.ndarray": _encode_array,
}
"""For types of modules that most programs never load, and that this one must not load for them."""
_LATE_MODULES = frozenset(name.partition(".")[0] for name in _LATE_ENCODERS)


Resolve = Callable[[str, Any, Any], Any]
"""From the tag, content and handle of what only one side has (see `_STAYING`) to what stands for it on this one."""


def _as_name(tag: str, content: Any, _handle: Any) -> Any:
    if tag == "ndarray":
        return Array(decode(_list(content)))
    if tag == "argument":
        raise ValueError("no argument is known here")
    return Opaque(str(content[0] if tag == "Opaque" else content)[:200])


def decode(data: Any, resolve: Resolve | None = None) -> Any:
    """The value that `encode` was given, rebuilt from builtin types.

    Args:
        data: What `json.loads` returned.
        resolve: Makes something of objects that stayed where they are; without it they are names.

    Raises:
        ValueError, TypeError, KeyError: `data` was not made by `encode`, but forged.
    """
    built: list[Any] = []
    pending: list[tuple[Any, int, Callable[[list[Any]], Any] | None]] = [(data, 0, None)]
    while pending:  # a stack of our own: deep nesting is data, not a reason for a RecursionError
        item, number, build = pending.pop()
        if build is not None:
            parts = built[len(built) - number :]
            del built[len(built) - number :]
            built.append(build(parts))
        elif type(item) is list and _has_nested(item):
            pending.append((None, len(item), list))
            pending.extend((part, 0, None) for part in reversed(item))
        elif type(item) is dict:
            parts, build = _opened(item, resolve)
            pending.append((None, len(parts), build))
            pending.extend((part, 0, None) for part in reversed(parts))
        else:
            built.append(item)
    return built[0]


def _opened(data: dict[str, Any], resolve: Resolve | None) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The parts of a tagged value that are to be decoded first, and what makes the value of them."""
    tag, content = data["t"], data["v"]
    if tag in _STAYING:
        return [], lambda _parts: (resolve or _as_name)(tag, content, data.get("h"))
    if tag in _OF_ITEMS:
        return _list(content), _OF_ITEMS[tag]
    if tag in _OF_PAIRS:
        parts = [part for key, item in content for part in (key, item)]
        return parts, lambda parts: _OF_PAIRS[tag](zip(_spread(parts[::2]), parts[1::2], strict=True))
    decoder = _DECODERS[tag]
    return [], lambda _parts: decoder(content)


def _list(content: Any) -> list[Any]:
    if type(content) is not list:
        raise TypeError("items are sent as a list")
    return content


def _has_nested(items: list[Any]) -> bool:
    kinds = set(map(type, items))
    return list in kinds or dict in kinds


def _spread(items: list[Any]) -> list[Any]:
    """The items, if a set or dict of them is built in linear time.

    Raises:
        ValueError: too many of them have one hash, which honest values do not.
    """
    if len(items) > _MAX_ALIKE and max(collections.Counter(map(hash, items)).values()) > _MAX_ALIKE:
        raise ValueError("the keys were made to collide")
    return items


def _hex_int(text: Any) -> int:
    if type(text) is not str:
        raise TypeError("a hexadecimal number is written as text")
    return int(text, 16)


def _decimal(text: Any) -> Any:
    import decimal

    if len(text) > _MAX_DIGITS:
        raise ValueError("a Decimal has so many digits at most")
    return decimal.Decimal(text)


def _fraction(parts: Any) -> Any:
    import fractions

    numerator, denominator = parts
    if max(len(numerator), len(denominator)) > _MAX_DIGITS or not _hex_int(denominator):
        raise ValueError("a fraction has a denominator, and so many digits at most")
    return fractions.Fraction(_hex_int(numerator), _hex_int(denominator))


def _datetime(tag: str) -> Callable[[Any], Any]:
    def decoder(content: Any) -> Any:
        import datetime

        kind = getattr(datetime, tag)
        return kind(*content) if tag == "timedelta" else kind.fromisoformat(content)

    return decoder


def _type_of(content: Any) -> Any:
    module, name = content
    found = getattr(sys.modules.get(module), name) if module in sys.stdlib_module_names else None
    if not isinstance(found, type):
        raise ValueError(f"{module}.{name} is no type of the standard library")
    return found


_STAYING = ("opaque", "Opaque", "argument", "module", "ndarray")
"""An object that cannot cross, the same on its way back, an argument that a call returned, a module, a numpy array."""
_OF_ITEMS: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "set": lambda items: set(_spread(items)),
    "frozenset": lambda items: frozenset(_spread(items)),
    "deque": collections.deque,
    "dict_keys": lambda items: dict.fromkeys(_spread(items)).keys(),
    "dict_values": lambda items: dict(enumerate(items)).values(),
    "dict_items": lambda pairs: dict(
        zip(_spread([key for key, _ in pairs]), [v for _, v in pairs], strict=True)
    ).items(),
}
_OF_PAIRS: dict[str, Callable[[Iterable[tuple[Any, Any]]], Any]] = {
    "dict": dict,
    "OrderedDict": collections.OrderedDict,
    "defaultdict": lambda pairs: collections.defaultdict(None, pairs),
    "Counter": lambda pairs: collections.Counter(dict(pairs)),
}
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": _hex_int,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": lambda parts: complex(*map(float, parts)),
    "range": lambda parts: range(*map(decode, parts)),
    "slice": lambda parts: slice(*map(decode, parts)),
    "Ellipsis": lambda _content: ...,
    "type": _type_of,
    "Decimal": _decimal,
    "Fraction": _fraction,
    "datetime": _datetime("datetime"),
    "date": _datetime("date"),
    "time": _datetime("time"),
    "timedelta": _datetime("timedelta"),
}


def dumps(data: Any) -> bytes:
    """Compact JSON of already encoded data."""
    return json.dumps(data, separators=(",", ":")).encode("ascii")


class MalformedError(ValueError):
    """Bytes from the other side that no honest sender makes."""


def loads(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`.

    Raises:
        MalformedError: it is not one (a program wrote to the channel itself).
    """
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not a message: {error}") from None
    if type(message) is not dict:
        raise MalformedError("a message is a JSON object")
    return message
