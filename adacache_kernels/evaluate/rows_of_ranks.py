"""The rows of a study that several ranks share: a file of each rank, joined at the end."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..options import AdaCacheWarning
from ..schedule.files import write_whole
from .results import Failure, Row, packed_row, read_rows

Key = tuple[str, str, int]


def rows_path(folder: Path, rank: int) -> Path:
    """Return the file to which a rank appends its rows."""
    return folder / (f"rows-{rank}.jsonl" if rank else "rows.jsonl")


def read_all_rows(folder: Path) -> list[Row]:
    """Return the rows of all ranks, also of earlier runs, each video and method once.

    Raises:
        ValueError: as `read_rows`.
    """
    rows: dict[Key, Row] = {}
    for path in [rows_path(folder, 0), *_other_files(folder)]:
        for row in read_rows(path):
            rows.setdefault(row.key, row)
    return list(rows.values())


def join_rows(folder: Path, keys: Sequence[Key]) -> list[Row]:
    """Return the rows of all ranks, and write them to one file if they are in several.

    Args:
        folder: of the files. No rank writes any more.
        keys: of the rows in the order of one process. Other rows come first.

    Raises:
        ValueError: as `read_rows`.
        OSError: the file cannot be written.
    """
    others = _other_files(folder)
    with warnings.catch_warnings():
        # The reading before the first video has warned already.
        warnings.simplefilter("ignore", AdaCacheWarning)
        rows = read_all_rows(folder)
    if others:
        order = {key: place for place, key in enumerate(keys)}
        rows.sort(key=lambda row: order.get(row.key, -1))
        write_whole(rows_path(folder, 0), b"".join(map(packed_row, rows)))
        for path in others:
            path.unlink()
    return rows


def join_failures(
    gathered: Iterable[Sequence[Mapping[str, Any]]], rows: Sequence[Row]
) -> list[Failure]:
    """Return one failure of each method, that of the first rank which has one.

    Args:
        gathered: the failures of each rank, as dicts.
        rows: of all ranks and the wanted videos; a failure counts those of its method.
    """
    failures: dict[str, Failure] = {}
    for values in (each for of_rank in gathered for each in of_rank):
        failure = Failure(**{**values, "notes": tuple(values["notes"])})
        videos = sum(row.method == failure.method for row in rows)
        failures.setdefault(failure.method, replace(failure, videos=videos))
    return list(failures.values())


def _other_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("rows-*.jsonl"))
