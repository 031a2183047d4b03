"""Pickles read without running them: builtins, arrays, and exceptions as plain records.

A pickle is a program: it names functions and calls them. Here no name is ever looked up. Each of the few known ones
stands for a builder of ours that only checks and copies; every other name is refused. Who reads pickles that name more
(tensors, in the files of the original) gives builders for those.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from coderl.types import InputError


@dataclass(frozen=True)
class Raised:
    """An exception that a pickle holds: what it was called and said. Its class is never looked up."""

    name: str
    """Of its class, without the module."""
    args: tuple[Any, ...]

    def __setstate__(self, state: Any) -> None:
        """Ignore attributes that a pickle would set."""

    @property
    def message(self) -> str:
        """What it said, on one line."""
        return " ".join(" ".join(str(a) for a in self.args if isinstance(a, str | int | float)).split())


Builders = Mapping[str, Callable[..., Any]]
"""What stands for each name (`module.name`) that a pickle may give."""


def load(path: Path, builders: Builders | None = None) -> Any:
    """Return what a pickle holds: builtins, NumPy arrays, `Raised` records, and what `builders` make.

    Source: the files that the original writes, of Python 3.7 and NumPy 1, whose module names have changed since.

    Raises:
        InputError: the file is missing, cut short or no pickle, is nested too deeply, or names anything that is not
            plain data.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return loads(content, str(path), builders)


def loads(content: bytes, where: str, builders: Builders | None = None) -> Any:
    """Return what the bytes of a pickle hold; see `load`.

    Raises:
        InputError: see `load`; the line begins with `where`.
    """
    try:
        return _plain(_Unpickler(io.BytesIO(content), {**_BUILDERS, **(builders or {})}).load(), {})
    except RefusedError as error:
        raise InputError(f"{where}: refused, {error}") from None
    except RecursionError:
        raise InputError(f"{where}: refused, it is nested too deeply") from None
    except Exception as error:  # on broken bytes the reader raises whatever comes up: struct.error, KeyError, ...
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"{where}: not a whole pickle ({reason})") from None


class RefusedError(Exception):
    """The pickle asks for something that is not plain data."""


def _read_bytearray(reader: Any) -> None:
    """Read as many bytes as there are, where Python's own first fills as much memory as the pickle says."""
    (length,) = struct.unpack("<Q", reader.read(8))
    reader.append(bytearray(reader.read(length)))


class _Unpickler(pickle._Unpickler):
    """The reader in Python: one opcode can make the one in C fill the memory with a memo of the length it names."""

    dispatch: ClassVar[Any] = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: _read_bytearray}

    def __init__(self, file: io.BytesIO, builders: Builders) -> None:
        super().__init__(file)
        self._builders = builders

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if builder := self._builders.get(f"{module}.{name}"):
            return _Global(builder)
        if _is_exception(module, name):
            return _Global(lambda *args: Raised(name, args))
        raise RefusedError(f"it names {f'{module}.{name}'[:80]!r}, which is not plain data")


class _Global:
    """What a name in a pickle stands for: it can be called, and nothing can be set on it."""

    __slots__ = ("_builder",)

    def __init__(self, builder: Callable[..., Any]):
        self._builder = builder

    def __call__(self, *args: Any) -> Any:
        return self._builder(*args)

    def __setstate__(self, state: Any) -> None:
        raise RefusedError("it sets attributes of a function")


def _is_exception(module: str, name: str) -> bool:
    """True for names that can only be an exception's; it becomes a `Raised`, whatever it is."""
    return module == "decimal" or bool(re.fullmatch(r"\w*(Error|Exception|Exit|Interrupt|Iteration|Warning)", name))


class Described:
    """Something that a pickle describes in two steps: call, then state. `resolve` makes the value of it at the end."""

    def __init__(self, *args: Any):
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def resolve(self) -> Any:
        """Return the value; what is only a part of another description has none.

        Raises:
            RefusedError: it has none, or its parts do not make one.
        """
        raise RefusedError("it holds something that is not plain data")


class _Dtype(Described):
    def dtype(self) -> np.dtype[Any]:
        name, order = self.args[0], self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "|"
        if not isinstance(name, str) or not re.fullmatch(r"[<>=|]?(b1|[iu][1248]|f[248])", name):
            raise RefusedError(f"an array of {str(name)[:20]!r}: expected numbers")
        return np.dtype(name).newbyteorder(order if order in ("<", ">") else "=")


class _Array(Described):
    def resolve(self) -> np.ndarray:
        match self.state:
            case (_, tuple(shape), _Dtype() as dtype, is_fortran, bytes(data)):
                return _array(data, dtype.dtype(), shape, "F" if is_fortran else "C")
        raise RefusedError("an array without its numbers")


class _Buffer(Described):
    def resolve(self) -> np.ndarray:
        match self.args:
            case (bytes() | bytearray() as data, _Dtype() as dtype, tuple(shape), "C" | "F" as order):
                return _array(bytes(data), dtype.dtype(), shape, order)
        raise RefusedError("an array without its numbers")


class _Scalar(Described):
    def resolve(self) -> Any:
        match self.args:
            case (_Dtype() as dtype, bytes(data)):
                return _array(data, dtype.dtype(), (), "C").item()
        raise RefusedError("a number without its bytes")


def _array(data: bytes, dtype: np.dtype[Any], shape: tuple[Any, ...], order: Any) -> np.ndarray:
    if not all(isinstance(n, int) and n >= 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise RefusedError(f"an array of shape {str(shape)[:40]} with {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order=order).astype(dtype.newbyteorder("="))


def _bytes_of(text: str, encoding: str) -> bytes:
    """What protocols 0 to 2 call to write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedError("it encodes text otherwise than pickles do")
    return text.encode("latin1")


def _refuse_call(*_: Any) -> Any:
    raise RefusedError("it makes an array otherwise than pickles do")


_BUILDERS: dict[str, Callable[..., Any]] = {
    "builtins.bytes": lambda: b"",
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "collections.OrderedDict": dict,
    "_codecs.encode": _bytes_of,
    "numpy.ndarray": _refuse_call,  # only named, as the class to rebuild
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": _Scalar,
    "numpy.core.numeric._frombuffer": _Buffer,
}


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """Return the value with its arrays made; what stands in many places is made once."""
    if id(value) in done:
        return done[id(value)]
    match value:
        case None | bool() | int() | float() | str() | bytes():
            return value
        case list() | tuple() | set() | frozenset():
            result = type(value)([_plain(item, done) for item in value])
        case dict():
            result = {_plain(key, done): _plain(item, done) for key, item in value.items()}
        case Raised():
            result = Raised(value.name, tuple(_plain(item, done) for item in value.args))
        case Described():
            result = value.resolve()
        case _:
            raise RefusedError("it holds something that is not plain data")
    done[id(value)] = result
    return result
