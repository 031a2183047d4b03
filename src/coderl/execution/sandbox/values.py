"""Python values as plain JSON and back: what may cross the sandbox's border. Standard library only.

Encoding goes by *exact* builtin type: a subclass with its own `__eq__` or `__reduce__` arrives as the name of its type
and nothing else. Lists, strings, floats, booleans and None are themselves in JSON; all other values are a JSON object
with a tag. Decoding runs no code of the program and never unpickles.
"""

from __future__ import annotations

import collections
import json
import sys
from collections.abc import Callable
from typing import Any

_SCALARS = frozenset({str, float, bool, type(None)})
_JSON_INT = 1 << 62
_MAX_DEPTH = 100


class Opaque:
    """Stands for an object that cannot cross; equal to nothing but itself."""

    def __init__(self, type_name: str, handle: int | None = None) -> None:
        self.type_name = type_name
        self.handle = handle
        """Where the sender kept the object, so that it can be named in a later call."""

    def __repr__(self) -> str:
        return f"<{self.type_name} object>"


Keep = Callable[[object], "int | None"]


def _forget(_value: object) -> None:
    return None


class Remote:
    """Names something that lives with the program, by its path: may be passed on, called, and asked for its parts."""

    def __init__(self, path: str, call: Callable[[str, tuple[Any, ...], dict[str, Any]], Any] | None = None) -> None:
        self._path = path
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the program's function returns."""
        if self._call is None:
            raise TypeError(f"{self._path} cannot be called from here")
        return self._call(self._path, args, kwargs)

    def __getattr__(self, name: str) -> Remote:
        if name.startswith("__"):
            raise AttributeError(name)
        return Remote(f"{self._path}.{name}", self._call)


def encode(value: Any, keep: Keep = _forget, depth: int = 0) -> Any:
    """JSON-able form of `value`; `keep` may hold on to an object that cannot cross and return its handle."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is int:
        return value if -_JSON_INT < value < _JSON_INT else {"t": "int", "v": hex(value)}
    if depth > _MAX_DEPTH:
        return {"t": "opaque", "v": f"{kind.__name__} nested too deeply"}
    if kind is list:
        return _encode_items(value, keep, depth)
    encoder = _ENCODERS.get(kind) or _encoder_of_number(kind)
    if encoder is None:
        name = type.__getattribute__(kind, "__name__")
        return {"t": "opaque", "v": str.__str__(name)[:200], "h": keep(value)}
    return {"t": kind.__name__, "v": encoder(value, keep, depth + 1)}


def _encode_items(values: Any, keep: Keep, depth: int) -> list[Any]:
    items = list(values)
    if _SCALARS.issuperset(map(type, items)):
        return items
    return [encode(item, keep, depth + 1) for item in items]


def _encode_pairs(value: Any, keep: Keep, depth: int) -> list[Any]:
    return [[encode(k, keep, depth), encode(v, keep, depth)] for k, v in value.items()]


_ENCODERS: dict[type, Callable[[Any, Keep, int], Any]] = {
    tuple: _encode_items,
    set: _encode_items,
    frozenset: _encode_items,
    collections.deque: _encode_items,
    dict: _encode_pairs,
    collections.OrderedDict: _encode_pairs,
    collections.defaultdict: _encode_pairs,
    collections.Counter: _encode_pairs,
    bytes: lambda value, _keep, _depth: value.hex(),
    bytearray: lambda value, _keep, _depth: value.hex(),
    complex: lambda value, _keep, _depth: [value.real, value.imag],
    range: lambda value, keep, depth: [encode(part, keep, depth) for part in (value.start, value.stop, value.step)],
    Remote: lambda value, _keep, _depth: value._path,
    Opaque: lambda value, _keep, _depth: [value.type_name, value.handle],
}


def _encoder_of_number(kind: type) -> Callable[[Any, Keep, int], Any] | None:
    """For types of modules that most programs never load, and that this one must not load for them."""
    for module, name, encoder in _NUMBERS:
        if kind is getattr(sys.modules.get(module), name, None):
            return encoder
    return None


_NUMBERS: tuple[tuple[str, str, Callable[[Any, Keep, int], Any]], ...] = (
    ("decimal", "Decimal", lambda value, _keep, _depth: str(value)),
    ("fractions", "Fraction", lambda value, _keep, _depth: [hex(value.numerator), hex(value.denominator)]),
)


def decode(data: Any, resolve: Callable[[str], Any] | None = None) -> Any:
    """The value that `encode` was given, rebuilt from builtin types.

    Args:
        data: What `json.loads` returned.
        resolve: Turns the path of a `Remote` or the handle of an `Opaque` ("#3") into the real object, on the side
            where it lives; elsewhere both stay names.

    Raises:
        ValueError, TypeError, KeyError: `data` was not made by `encode`, but forged.
    """
    if type(data) is list:
        return [decode(item, resolve) for item in data] if _has_nested(data) else data
    if type(data) is not dict:
        return data
    tag = data["t"]
    if tag == "opaque":
        return Opaque(str(data["v"]), data.get("h"))
    if tag == "Opaque":
        return resolve(f"#{int(data['v'][1])}") if resolve and data["v"][1] is not None else Opaque(str(data["v"][0]))
    if tag == "Remote":
        return resolve(data["v"]) if resolve else Remote(str(data["v"]))
    return _DECODERS[tag](data["v"], resolve)


def _has_nested(items: list[Any]) -> bool:
    kinds = set(map(type, items))
    return list in kinds or dict in kinds


def _decode_pairs(pairs: Any, resolve: Any) -> dict[Any, Any]:
    return {decode(key, resolve): decode(value, resolve) for key, value in pairs}


def _hex_int(text: Any) -> int:
    if type(text) is not str:
        raise TypeError("a hexadecimal number is written as text")
    return int(text, 16)


def _decimal(text: Any, _resolve: Any) -> Any:
    import decimal

    return decimal.Decimal(text)


def _fraction(parts: Any, _resolve: Any) -> Any:
    import fractions

    numerator, denominator = map(_hex_int, parts)
    if denominator == 0:
        raise ValueError("a fraction needs a denominator")
    return fractions.Fraction(numerator, denominator)


_DECODERS: dict[str, Callable[[Any, Any], Any]] = {
    "int": lambda data, _resolve: _hex_int(data),
    "tuple": lambda data, resolve: tuple(decode(item, resolve) for item in data),
    "set": lambda data, resolve: {decode(item, resolve) for item in data},
    "frozenset": lambda data, resolve: frozenset(decode(item, resolve) for item in data),
    "deque": lambda data, resolve: collections.deque(decode(item, resolve) for item in data),
    "dict": _decode_pairs,
    "OrderedDict": lambda data, resolve: collections.OrderedDict(_decode_pairs(data, resolve)),
    "defaultdict": lambda data, resolve: collections.defaultdict(None, _decode_pairs(data, resolve)),
    "Counter": lambda data, resolve: collections.Counter(_decode_pairs(data, resolve)),
    "bytes": lambda data, _resolve: bytes.fromhex(data),
    "bytearray": lambda data, _resolve: bytearray.fromhex(data),
    "complex": lambda data, _resolve: complex(*data),
    "range": lambda data, resolve: range(*(decode(part, resolve) for part in data)),
    "Decimal": _decimal,
    "Fraction": _fraction,
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
