"""Frozen dataclasses as plain values, and back: what a checkpoint holds of a run is all fields of its phase.

A plain value is made of dicts with texts as keys, lists, numbers, texts, None and tensors. A dataclass becomes a dict
with its name under `KIND`. The way back follows the types that the fields are declared with, so that nothing in a file
chooses what is made of it.
"""

import dataclasses
import types
import typing
from functools import lru_cache
from typing import Any, TypeVar

KIND = "kind"
Value = TypeVar("Value")


def plain(value: Any) -> Any:
    """The value as dicts, lists, numbers, texts, None and tensors; tensors are shared, not copied."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {KIND: type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def restored(kind: type[Value], value: Any) -> Value:
    """The dataclass `kind` whose plain value that is. Raises TypeError for one that has other fields or types."""
    return typing.cast("Value", _restored(kind, value))


def _restored(kind: Any, value: Any) -> Any:
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _restored(_member(of, value), value)
    if origin is typing.Literal:
        if value not in of:
            raise TypeError(f"expected one of {', '.join(map(str, of))}, found {value}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _unexpected("tuple", value)
        entries = of[:1] * len(value) if of[-1] is Ellipsis else of
        if len(entries) != len(value):
            raise TypeError(f"expected {len(entries)} entries, found {len(value)}")
        return tuple(map(_restored, entries, value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _unexpected("dict", value)
        return {of[0](key): _restored(of[1], entry) for key, entry in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass(kind, value)
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, kind):
        raise _unexpected(kind.__name__, value)
    return value


def _dataclass(kind: Any, value: Any) -> Any:
    if not isinstance(value, dict) or value.get(KIND) != kind.__name__:
        raise _unexpected(kind.__name__, value)
    hints = _hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    if {*value} != {KIND, *names}:
        raise TypeError(f"{kind.__name__} has other fields: {', '.join(sorted({*value} ^ {KIND, *names}))}")
    return kind(**{name: _restored(hints[name], value[name]) for name in names})


def _unexpected(expected: str, value: Any) -> TypeError:
    found = value.get(KIND, "dict") if isinstance(value, dict) else type(value).__name__
    return TypeError(f"expected {expected}, found {found}")


@lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _member(members: tuple[Any, ...], value: Any) -> Any:
    """Of the types that a field may have, the one that a plain value is of."""
    if value is None and type(None) in members:
        return type(None)
    others = [member for member in members if member is not type(None)]
    if len(others) == 1:
        return others[0]
    names = [(typing.get_origin(member) or member).__name__ for member in others]
    found = value.get(KIND) if isinstance(value, dict) else type(value).__name__
    if found not in names:
        raise _unexpected(" or ".join(names), value)
    return others[names.index(found)]
