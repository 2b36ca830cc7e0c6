"""The rows of a study, and their files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from ..engine.reports.summary import Summary
from ..measure.psnr_ssim import Video


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
    """Return the rows of a file; none if there is no file.

    Raises:
        ValueError: a line is not JSON, or was written by another version.
    """
    if not path.exists():
        return []
    rows = []
    names = {f.name for f in fields(Row)}
    needed = {f.name for f in fields(Row) if f.default is MISSING}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not JSON ({error}); remove the line, or use another folder"
            ) from error
        wrong = (set(values) - names) | (needed - set(values))
        if wrong:
            raise ValueError(
                f"{path}, line {number}: {', '.join(sorted(wrong))} missing or unknown; it was "
                "written by another version, use another folder"
            )
        values["notes"] = tuple(values.get("notes", ()))
        rows.append(Row(**values))
    return rows


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
    if path.exists():
        before = json.loads(path.read_text())
        differing = [key for key in identity if before.get(key) != identity[key]]
        if differing:
            raise ValueError(
                f"{folder} holds a study with other {', '.join(differing)}; give another --out"
            )
        return
    # Written in one operation: another process may read it to generate other seeds of the study.
    written = path.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps(identity, indent=1))
    written.rename(path)
