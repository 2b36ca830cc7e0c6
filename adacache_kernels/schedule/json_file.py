"""Strict reading of JSON: files of bounded size and depth, and dataclasses with checked types.

A validation library would be one more dependency, and would leave duplicate entries, depth, size
and matrices to this package all the same.
"""

from __future__ import annotations

import json
import math
import reprlib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .files import is_file

Parsed = TypeVar("Parsed")

LARGEST_FILE = 256 << 20
"""Most bytes of a file. A profile of 1000 steps with 6 spans has about 50 million."""
DEEPEST = 64
"""Most levels of lists and objects."""
MOST_DIGITS = 19
"""Most characters of an integer."""

SEQUENCES = (list, tuple, Sequence)
NAMES = {str: "a text", int: "an integer", float: "a finite number", bool: "true or false"}


def read_json(path: str | Path) -> Any:
    """Return the contents of a JSON file.

    Raises:
        FileNotFoundError: the file does not exist.
        OSError: the file cannot be read.
        ValueError: the file is too large or no JSON; or it has an entry twice, a number that is not
            finite, or too many levels. The message names the entry.
    """
    if not is_file(path):
        raise FileNotFoundError(f"there is no file {short(str(path))}")
    size = Path(path).stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"the file has {size} bytes; at most {LARGEST_FILE} are read")
    return parse_json(Path(path).read_bytes())


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: as `read_json`.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except RecursionError:
        raise ValueError(f"this is no JSON file: it has more than {DEEPEST} levels") from None
    except ValueError as error:
        raise ValueError(f"this is no JSON file: {error}") from error
    for path, item in _items(value):
        if isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"{path or 'the number'} is {item}, not finite or too large")
    return value


def parse_dataclass(cls: type[Parsed], values: object, where: str = "") -> Parsed:
    """Return a dataclass from a JSON object that has its fields, each with a value of its type.

    Args:
        cls: the dataclass. Its types are made of bool, int, float, str, None, literals, mappings,
            lists and tuples. A float may be an integer in JSON.
        values: the object.
        where: path of the object for messages, such as "target.".

    Raises:
        ValueError: a field is missing, unknown or wrong. The message names it.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where.rstrip('.') or 'it'} is {short(values)}; it must be an object")
    known = {each.name: each for each in fields(cls)}  # type: ignore[arg-type]
    missing = [
        name
        for name, each in known.items()
        if name not in values and each.default is MISSING and each.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"it has no {where}{missing[0]}")
    hints = get_type_hints(cls)
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{where}{name} is unknown; there are {', '.join(known)}")
        if not _fits(value, hints[name]):
            raise ValueError(
                f"{where}{name} is {short(value)}; it must be {_described(hints[name])}"
            )
    return cls(**values)


def short(value: object) -> str:
    """Return a value for a message, shortened to about 300 characters."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = 200
    try:
        text = shortened.repr(value)
    except ValueError:  # Python refuses to convert thousands of digits to text.
        return "a number with thousands of digits"
    return text if len(text) <= 300 else f"{text[:300]}..."


def without_infinities(value: Any) -> Any:
    """Return the value with None for every number that is not finite, which JSON lacks."""
    if isinstance(value, Mapping):
        return {name: without_infinities(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, value in pairs:
        if name in entries:
            raise ValueError(f"it has the entry {short(name)} twice")
        entries[name] = value
    return entries


def _integer(text: str) -> int | float:
    """Return an integer, infinity if it has more digits than any that is written here."""
    return int(text) if len(text) <= MOST_DIGITS else math.inf


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every item of a JSON value with its path, such as "profile.gram[3]".

    Raises:
        ValueError: there are too many levels.
    """
    waiting: list[tuple[str, Any, int]] = [("", value, 0)]
    while waiting:
        path, item, depth = waiting.pop()
        if depth >= DEEPEST and isinstance(item, dict | list):
            raise ValueError(f"{path[:60]}... has more than {DEEPEST} levels")
        if isinstance(item, dict):
            dot = "." if path else ""
            waiting += [(f"{path}{dot}{name}", each, depth + 1) for name, each in item.items()]
        elif isinstance(item, list):
            waiting += [(f"{path}[{i}]", each, depth + 1) for i, each in enumerate(item)]
        else:
            yield path, item


def _fits(value: object, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin in SEQUENCES:
        return isinstance(value, list | tuple) and all(_fits(item, inner[0]) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            isinstance(name, str) and _fits(item, inner[1]) for name, item in value.items()
        )
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value)  # type: ignore[arg-type]
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _described(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is types.NoneType:
        return "null"
    if origin in (Union, types.UnionType):
        return " or ".join(map(_described, inner))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, inner))
    if origin in SEQUENCES:
        return f"a list, each item {_described(inner[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "an object" if inner[1] is Any else f"an object, each value {_described(inner[1])}"
    return NAMES.get(hint, str(hint))
