"""Rows of a study, and their file."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from ..engine.summary import Summary
from ..measure.psnr_ssim import Video


@dataclass(frozen=True)
class Case:
    """A video to make."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Row:
    """One video by one method, compared with the full run of the same prompt and seed.

    Args:
        method, curve: see `Method`.
        prompt, seed: what was asked for.
        scheduled: steps of the scheduler.
        computed: of these, those that ran the blocks, parts of steps counted as parts; None where
            the method does not tell.
        psnr: in dB; None where the videos are equal.
        ssim: structural similarity.
        lpips: distance; None where it was not asked for.
        seconds, pipeline_seconds: in the transformer, and of the whole pipeline.
        full_seconds, full_pipeline_seconds: the same of the full run made before.
        flops: in the transformer; None where they were not counted for this video.
        peak_bytes: most that torch had allocated; None without CUDA.
        cache_bytes: of the cache; None where the method does not tell.
        waits: of the host for a decision; None where the method does not tell.
        computed_steps: which ones.
        distances: of each computed step.
        reads: of the host in the transformer; None where they were not counted for this video.
        held_bytes: see `held_tensors`; None likewise.
        notes: what was done to the pipeline so that the method runs on it.
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
        """What tells the rows of a file apart."""
        return self.method, self.prompt, self.seed


@dataclass(frozen=True)
class Failure:
    """A method that raised.

    Args:
        method: see `Method`.
        error: its kind and first line.
        videos: that were made before, in this run and those it goes on with.
        notes: see `Row`.
    """

    method: str
    error: str
    videos: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CountedCosts:
    """What an untimed generation counted: operations, reads, most bytes held."""

    flops: int | None = None
    reads: int | None = None
    held_bytes: int | None = None


@dataclass(frozen=True)
class GeneratedVideo:
    """A video and what it took."""

    video: Video
    seconds: float
    pipeline_seconds: float
    peak_bytes: int | None
    summary: Summary | None


def read(path: Path) -> list[Row]:
    """Rows of a file; none if there is no file yet.

    Raises:
        ValueError: lines that this version cannot read.
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
                f"{path}, line {number}: not JSON ({error}); take the line out, or give another "
                "folder"
            ) from error
        wrong = (set(values) - names) | (needed - set(values))
        if wrong:
            raise ValueError(
                f"{path}, line {number}: {', '.join(sorted(wrong))} missing or "
                "unknown; it was written by another version, give another folder"
            )
        values["notes"] = tuple(values.get("notes", ()))
        rows.append(Row(**values))
    return rows
