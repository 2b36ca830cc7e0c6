"""The rows of a study, and their files."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..engine.reports.summary import Summary
from ..measure.psnr_ssim import Video
from ..options import AdaCacheWarning
from ..schedule.files import write_whole
from ..schedule.json_file import parse_dataclass, parse_json, read_json, without_infinities

ROW_START = '{"method": '
"""The start of a row in a file."""


@dataclass(frozen=True)
class Case:
    """A video to generate."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Row:
    """One video by one method, compared with the full run of the same prompt and seed.

    The full run is the unpatched generation before it. `flops`, `reads` and `held_bytes` are None
    unless they were counted for this video.

    Args:
        method, curve: see `Method`.
        prompt, seed: of the video.
        scheduled: steps of the scheduler.
        computed: computed steps, with parts of a step counted as parts; None if the method does
            not report them.
        psnr: in dB; None for equal videos.
        ssim: structural similarity.
        lpips: distance; None if it was not requested.
        seconds, pipeline_seconds: in the transformer, and in the whole pipeline.
        full_seconds, full_pipeline_seconds: the same, of the full run.
        flops: floating-point operations in the transformer.
        peak_bytes: most bytes that torch had allocated; None without CUDA.
        cache_bytes: of the cache; None if the method does not report them.
        waits: number of host waits; None if the method does not report it.
        computed_steps: the computed ones, counted from 1.
        distances: of each computed step.
        reads: host reads in the transformer.
        held_bytes: see `held_tensors`.
        notes: changes to the pipeline that the method needed.
    """

    method: str
    curve: str
    prompt: str
    seed: int
    scheduled: int
    computed: int | None
    psnr: float | None
    ssim: float
    lpips: float | None
    seconds: float
    pipeline_seconds: float
    full_seconds: float
    full_pipeline_seconds: float
    flops: int | None
    peak_bytes: int | None
    cache_bytes: int | None
    waits: int | None
    computed_steps: list[int]
    distances: list[float | None]
    reads: int | None = None
    held_bytes: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, int]:
        """Return the key of the row, unique in a file."""
        return self.method, self.prompt, self.seed


@dataclass(frozen=True)
class Failure:
    """A method that raised an error.

    Args:
        method: see `Method`.
        error: its class and its first line.
        videos: number of videos before the error, in this run and those that it resumes.
        notes: see `Row`.
    """

    method: str
    error: str
    videos: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CountedCosts:
    """The costs of an untimed generation: see the fields of `Row`."""

    flops: int | None = None
    reads: int | None = None
    held_bytes: int | None = None


@dataclass(frozen=True)
class GeneratedVideo:
    """A video with its times and memory.

    Args:
        video: `[frames, height, width, 3]` in 0 to 1.
        seconds, pipeline_seconds, peak_bytes: see `Row`.
        summary: of the generation; None without one.
    """

    video: Video
    seconds: float
    pipeline_seconds: float
    peak_bytes: int | None
    summary: Summary | None


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file, each video and method once; none if there is no file.

    A row that an interruption has cut off is left out, with a warning: its video is generated
    again. The next row may follow it on the same line.

    Raises:
        ValueError: a line has no row, or one that is wrong or was written by another version. The
            message names the file, the line and the field.
    """
    if not path.exists():
        return []
    rows: dict[tuple[str, str, int], Row] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: this is no text ({error}); use another folder") from error
    for number, line in enumerate(lines, 1):
        for text in _rows_of(line):
            row = _parsed(text, f"{path}, line {number}")
            if row is not None:
                rows.setdefault(row.key, row)
    return list(rows.values())


def append_row(file: BinaryIO, row: Row) -> None:
    """Append a row in one operation, and wait for the disk.

    Args:
        file: open for appending, without a buffer.
        row: the row.

    Raises:
        OSError: the disk is full.
    """
    line = packed_row(row)
    if file.write(line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file.fileno())


def packed_row(row: Row) -> bytes:
    """Return the line of a row. A distance that is not finite becomes None."""
    return json.dumps(without_infinities(asdict(row)), allow_nan=False).encode() + b"\n"


def end_last_line(path: Path) -> None:
    """End the last line of a file, if an interruption has cut it off."""
    with path.open("ab+") as file:
        if file.tell() == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.write(b"\n")


def _rows_of(line: str) -> list[str]:
    """Return the texts of the rows on a line: one, unless writes were cut off.

    Inside of a JSON string the quotes of `ROW_START` have backslashes.
    """
    # After a loss of power, a file can end with zeros.
    line = line.strip("\0 \t\r")
    starts = [match.start() for match in re.finditer(re.escape(ROW_START), line)]
    bounds = sorted({0, *starts, len(line)})
    return [line[first:last] for first, last in itertools.pairwise(bounds)]


def _parsed(text: str, where: str) -> Row | None:
    """Return the row of a text, or None with a warning if the text is cut off."""
    try:
        row = parse_dataclass(Row, parse_json(text))
    except ValueError as error:
        is_row = text.startswith(ROW_START) or ROW_START.startswith(text)
        if is_row and isinstance(error.__cause__, json.JSONDecodeError):
            message = f"{where}: a row was cut off by an interruption; its video is generated again"
            warnings.warn(message, AdaCacheWarning, stacklevel=3)
            return None
        raise ValueError(
            f"{where}: {error}; the line is broken or was written by another version, remove it or "
            "use another folder"
        ) from error
    return replace(row, notes=tuple(row.notes))


def check_same_study(folder: Path, identity: Mapping[str, Any]) -> None:
    """Check that a folder holds rows of the same study, or write `study.json` to a new one.

    Args:
        folder: made if it does not exist.
        identity: properties that all rows of one table share, for JSON.

    Raises:
        ValueError: the folder holds another study.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.json"
    if not path.exists():
        write_whole(path, json.dumps(identity, indent=1))
        return
    try:
        before = parse_dataclass(_Study, {"properties": read_json(path)}).properties
    except ValueError as error:
        raise ValueError(f"{path}: {error}; give another --out") from error
    differing = [key for key in identity if before.get(key) != identity[key]]
    if differing:
        raise ValueError(
            f"{folder} holds a study with other {', '.join(differing)}; give another --out"
        )


@dataclass(frozen=True)
class _Study:
    properties: Mapping[str, Any]
