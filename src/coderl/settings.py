"""What every group of settings is: frozen, closed, documented field by field; and which of them decide a result."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from coderl import records

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True)
class Incidental:
    """Marks a setting that does not decide a stage's result: a change of it does not make an old result stale."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reads:
    """Marks a setting that names a file or folder: what is in there decides a stage's result, and not its name."""


@dataclass(frozen=True, slots=True)
class DependsOn:
    """Marks a setting whose meaning depends on what is installed: `told` says what stands in a request for a value."""

    told: Callable[[Any], Any]


class Config(BaseModel):
    """A frozen group of settings: an unknown key is an error, and `none` stands for None where that is a value."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _named_none(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        optional = {name for name, field in cls.model_fields.items() if _takes_none(field.annotation)}
        return {
            k: None if k in optional and isinstance(v, str) and v.lower() == "none" else v for k, v in given.items()
        }


def _takes_none(annotation: Any) -> bool:
    return type(None) in typing.get_args(annotation)


def decisive(value: Any) -> Any:
    """Return settings as JSON values: none that is `Incidental`, and the hash of what one `Reads` in its place."""
    if isinstance(value, BaseModel):
        fields = {n: f for n, f in type(value).model_fields.items() if not is_incidental(f)}
        return {name: _decisive_field(getattr(value, name), field) for name, field in fields.items()}
    if isinstance(value, dict):
        return {str(key): decisive(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [decisive(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _decisive_field(value: Any, field: FieldInfo) -> Any:
    if any(isinstance(mark, Reads) for mark in field.metadata) and value is not None and Path(value).exists():
        return records.hash_stage(Path(value))
    for mark in field.metadata:
        if isinstance(mark, DependsOn):
            return mark.told(value)
    return decisive(value)


def is_incidental(field: FieldInfo) -> bool:
    """Return whether a field is declared `Incidental`."""
    return any(isinstance(mark, Incidental) for mark in field.metadata)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return one line for the first thing wrong with some settings, naming the nearest known key."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    name = ".".join(location)
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"unknown key {name!r}; {hint}"
    return f"{name} = {first['input']!r}: {first['msg'].lower()}"


def _keys_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    for part in location:
        field = model.model_fields.get(part)
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((m for m in map(_model_in, typing.get_args(annotation)) if m), None)
    return None
