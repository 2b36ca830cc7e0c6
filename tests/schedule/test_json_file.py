"""Strict JSON: what is refused, and that the message names the entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from adacache_kernels.schedule import json_file
from adacache_kernels.schedule.json_file import parse_dataclass, parse_json, read_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": {"b": [1, NaN]}}', r"a\.b\[1\] is nan, not finite"),
        ('{"a": Infinity}', "a is inf, not finite"),
        ('{"a": -Infinity}', "a is -inf, not finite"),
        ('{"a": 1e999}', "a is inf, not finite or too large"),
        ("NaN", "the number is nan"),
        ('{"a": ' + "9" * 20 + "}", "a is inf, not finite or too large"),
        ('{"a": -' + "9" * 10**6 + "}", "a is inf"),
        ('{"a": 1, "b": 2, "a": 3}', "it has the entry 'a' twice"),
        ('[{"k": [{"a": 1, "a": 1}]}]', "entry 'a' twice"),
        ("[" * 65 + "]" * 65, "more than 64 levels"),
        ('{"a":' * 70 + "1" + "}" * 70, r"^a\.a\.a.* more than 64 levels"),
        ("[" * 10**5, "this is no JSON file"),
        ("[" * 10**6 + "]" * 10**6, "this is no JSON file: it has more than 64 levels"),
        ("", "this is no JSON file"),
        ("{", "this is no JSON file: Expecting"),
        ('{"a": 1} {"b": 2}', "this is no JSON file: Extra data"),
        (b"\xff\xfe\xfd", "this is no JSON file"),
        (b'{"a": "\xff"}', "this is no JSON file"),
        (b"\0" * 50, "this is no JSON file"),
    ],
)
def test_what_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        parse_json(text)
    assert len(str(error.value)) < 500


def test_what_is_read() -> None:
    text = '{"a": [1, -2.5, 1e308, "NaN", true, null, {"b": {}}], "c": 9223372036854775807}'
    assert parse_json(text) == {
        "a": [1, -2.5, 1e308, "NaN", True, None, {"b": {}}],
        "c": 2**63 - 1,
    }
    assert parse_json("[" * 64 + "]" * 64)


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(json_file.LARGEST_FILE + 1)  # Without any block on the disk.
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    with pytest.raises(ValueError, match=r"the file has 268435457 bytes; at most"):
        read_json(path)


@pytest.mark.parametrize("name", ["none.json", "x" * 300, ".", "a\0b", "long " * 10**5])
def test_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file") as error:
        read_json(f"{tmp_path}/{name}")
    assert len(str(error.value)) < 300


@dataclass
class Sample:
    """A class with every type that is read."""

    number: float
    count: int
    name: str
    flag: bool
    kind: Literal["this", "that"]
    maybe: float | None
    values: list[float | None]
    parts: Mapping[str, list[int]]
    notes: Mapping[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


GOOD: dict[str, Any] = {
    "number": 1,
    "count": 2,
    "name": "x",
    "flag": True,
    "kind": "that",
    "maybe": None,
    "values": [1, None, 2.5],
    "parts": {"a": [1]},
}


def test_a_dataclass() -> None:
    made = parse_dataclass(Sample, GOOD | {"notes": {"any": [{}]}})
    assert (made.number, made.values, made.notes) == (1, [1, None, 2.5], {"any": [{}]})
    assert parse_dataclass(Sample, GOOD).notes == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": "1"}, r"at\.number is '1'; it must be a finite number"),
        ({"number": True}, r"at\.number is True; it must be a finite number"),
        ({"number": float("nan")}, r"at\.number is nan"),
        ({"count": 1.0}, r"at\.count is 1.0; it must be an integer"),
        ({"count": True}, r"at\.count is True"),
        ({"count": None}, r"at\.count is None"),
        ({"name": 3}, r"at\.name is 3; it must be a text"),
        ({"flag": 1}, r"at\.flag is 1; it must be true or false"),
        ({"kind": "other"}, r"at\.kind is 'other'; it must be one of 'this', 'that'"),
        ({"kind": ["this"]}, r"at\.kind is \['this'\]"),
        ({"maybe": "x"}, r"at\.maybe is 'x'; it must be a finite number or null"),
        ({"values": {"a": 1}}, r"at\.values is .* a list, each item a finite number or null"),
        ({"values": [1, [2]]}, r"at\.values is \[1, \[2\]\]"),
        ({"values": "12"}, r"at\.values is '12'"),
        ({"parts": [1]}, r"at\.parts is .* an object, each value a list, each item an integer"),
        ({"parts": {"a": 1}}, r"at\.parts is"),
        ({"sizes": {"a": "1"}}, r"at\.sizes is .* an object, each value an integer"),
        ({"notes": None}, r"at\.notes is None; it must be an object"),
        ({"extra": 1}, r"at\.extra is unknown; there are number, count"),
    ],
)
def test_a_wrong_entry_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_dataclass(Sample, GOOD | change, "at.")


def test_missing_entries_and_no_object() -> None:
    with pytest.raises(ValueError, match=r"it has no at\.count"):
        parse_dataclass(Sample, {k: v for k, v in GOOD.items() if k != "count"}, "at.")
    for values in (None, 3, "text", [1], [["number", 1]]):
        with pytest.raises(ValueError, match="it must be an object"):
            parse_dataclass(Sample, values)
    with pytest.raises(ValueError, match=r"^it is .{1,310}; it must be an object$"):
        parse_dataclass(Sample, ["x" * 10**6] * 100)
