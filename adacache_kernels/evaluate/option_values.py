"""The syntax of method names: their parts, their options and the values of these."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..schedule.json_file import parse_dataclass, read_json


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """Split a text at the separators, one character each, that are not inside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def literal(text: str) -> Any:
    """Return the Python literal in a text, or the text itself if it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def check_known(text: str, options: Iterable[str], known: Sequence[str]) -> None:
    """Check that the options of the method `text` are known.

    Raises:
        ValueError: one is not; the message lists the known ones.
    """
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(f"method {text!r}: no option {unknown[0]}; there are {', '.join(known)}")


def numbers_from(text: str, value: Any) -> Any:
    """Return the numbers in a JSON file if `value` names one, else `value` itself.

    Args:
        text: the method, for the message.
        value: of an option.

    Raises:
        ValueError: the file cannot be read, or holds no list of numbers.
    """
    if not (isinstance(value, str) and value.endswith(".json")):
        return value
    try:
        return tuple(parse_dataclass(_Numbers, {"numbers": read_json(value)}).numbers)
    except (OSError, ValueError) as error:
        raise ValueError(f"method {text!r}: {value} holds no list of numbers ({error})") from error


@dataclass(frozen=True)
class _Numbers:
    numbers: Sequence[float]
