"""Amounts of memory as text, and the memory of devices."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adacache_kernels.memory.byte_sizes import (
    UNITS,
    format_bytes,
    free_memory,
    parse_bytes,
    total_memory,
)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("512MiB", 512 * 2**20),
        ("2GiB", 2**31),
        ("1.5GB", 1_500_000_000),
        (" 2 gib ", 2**31),
        ("4096", 4096),
        ("4096B", 4096),
        (".5 KiB", 512),
        ("1.0001KB", 1000),
        ("3TB", 3 * 10**12),
    ],
)
def test_parse(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize(
    "text", ["", "GiB", "2G", "2 GiB free", "-1GiB", "1e9", "0GiB", "0.5B", "1,5GB", "nan", "٣GB"]
)
def test_parse_says_what_it_expects(text: str) -> None:
    message = f"{re.escape(repr(text))} is no amount of memory, expected .*'512MiB'.*"
    with pytest.raises(ValueError, match=message):
        parse_bytes(text)


@given(st.integers(1, 2**50), st.sampled_from(list(UNITS)))
def test_parse_multiplies_by_the_unit(number: int, unit: str) -> None:
    assert parse_bytes(f"{number}{unit}") == number * UNITS[unit]


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536 << 10, "1.5 MiB"),
        (2 << 30, "2 GiB"),
        (5000 << 40, "5000 TiB"),
    ],
)
def test_format(amount: int, text: str) -> None:
    assert format_bytes(amount) == text


def test_memory_of_the_cpu() -> None:
    cpu = torch.device("cpu")
    assert 2**20 < free_memory(cpu) < total_memory(cpu) < 2**50


def test_memory_of_a_device_that_does_not_report_it() -> None:
    with pytest.raises(ValueError, match=r"device meta does not report .* give max_bytes in bytes"):
        total_memory(torch.device("meta"))
