"""Runs methods against each other, video by video, and keeps a row for each.

Every video is first made in full and then by every method, one after the other, so that a machine
that gets slower gets slower for all. Rows go to a file video by video, and a run that was broken
off goes on where it stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from adacache_kernels.history import Summary
from adacache_kernels.metrics import Video, psnr, ssim

from .costs import counted_flops, peak_memory, reset_peak_memory, timed_forwards
from .methods import FULL, Method, full
from .perceptual import lpips_distance
from .pipelines import Subject
from .sheet import save_strip, strip_path


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

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells the rows of a file apart."""
        return self.method, self.prompt, self.seed


@dataclass(frozen=True)
class Made:
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
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not JSON ({error}); take the line out, or give another "
                "folder"
            ) from error
        if set(values) != names:
            raise ValueError(
                f"{path}, line {number}: {', '.join(sorted(set(values) ^ names))} missing or "
                "unknown; it was written by another version, give another folder"
            )
        rows.append(Row(**values))
    return rows


class Study:
    """Methods on one pipeline.

    Args:
        subject: the pipeline.
        methods: to be compared.
        steps: of the full runs.
        lpips: whether to measure that distance.
        flops: whether to count the operations of the first video.
    """

    def __init__(
        self,
        subject: Subject,
        methods: Sequence[Method],
        steps: int,
        *,
        lpips: bool = False,
        flops: bool = True,
    ) -> None:
        self._subject = subject
        self.methods = [full(steps), *methods]
        self._lpips = lpips
        self._flops = flops

    def run(
        self,
        cases: Sequence[Case],
        folder: Path,
        tell: Callable[[str, int, int], None] = lambda doing, done, total: None,
    ) -> list[Row]:
        """All rows, those of earlier runs in `folder` included."""
        folder.mkdir(parents=True, exist_ok=True)
        raw = folder / "rows.jsonl"
        rows = read(raw)
        wanted = {(m.name, case.prompt, case.seed) for m in self.methods for case in cases}
        done = {row.key for row in rows if row.key in wanted}
        with raw.open("a") as file:
            for number, case in enumerate(cases):
                for row, video in self._of_case(case, done, counting=number == 0):
                    if row.key in done:
                        continue
                    rows.append(row)
                    done.add(row.key)
                    save_strip(video, strip_path(folder, row))
                    file.write(json.dumps(asdict(row)) + "\n")
                    file.flush()
                    tell(f"{case.prompt}: {row.method}", len(done), len(wanted))
        return [row for row in rows if row.key in wanted]

    def video(self, method: Method, case: Case) -> Video:
        """One video, made for its frames alone."""
        return self._make(method, case).video

    def _of_case(
        self, case: Case, done: set[tuple[str, str, int]], *, counting: bool
    ) -> Iterator[tuple[Row, Video]]:
        missing = [m for m in self.methods if (m.name, case.prompt, case.seed) not in done]
        if not missing:
            return
        reference = self._make(self.methods[0], case)
        for method in missing:
            made = reference if method.name == FULL else self._make(method, case)
            flops = self._count(method, case) if counting and self._flops else None
            yield self._row(method, case, made, reference, flops), made.video

    def _make(self, method: Method, case: Case) -> Made:
        pipe, device = self._subject.pipe, self._subject.device
        with method.applied(pipe) as tell:
            reset_peak_memory(device)
            with timed_forwards(pipe.transformer) as seconds:
                start = time.perf_counter()
                video = self._subject.generate(case.prompt, method.steps, case.seed)
                pipeline_seconds = time.perf_counter() - start
            return Made(video, sum(seconds), pipeline_seconds, peak_memory(device), tell())

    def _count(self, method: Method, case: Case) -> int:
        pipe = self._subject.pipe
        with method.applied(pipe), counted_flops(pipe.transformer) as work:
            self._subject.generate(case.prompt, method.steps, case.seed)
        return work.total

    def _row(
        self, method: Method, case: Case, made: Made, reference: Made, flops: int | None
    ) -> Row:
        value = psnr(made.video, reference.video)
        found = made.summary
        untouched = found is None and method.curve.startswith((FULL, "fewer steps"))
        computed = list(range(1, method.steps + 1)) if untouched else []
        count = round(found.computed_fraction * method.steps) if found else len(computed)
        return Row(
            method=method.name,
            curve=method.curve,
            prompt=case.prompt,
            seed=case.seed,
            scheduled=method.steps,
            computed=count,
            psnr=value if math.isfinite(value) else None,
            ssim=ssim(made.video, reference.video),
            lpips=lpips_distance(made.video, reference.video) if self._lpips else None,
            seconds=made.seconds,
            pipeline_seconds=made.pipeline_seconds,
            full_seconds=reference.seconds,
            full_pipeline_seconds=reference.pipeline_seconds,
            flops=flops,
            peak_bytes=made.peak_bytes,
            cache_bytes=found.cache_bytes if found else 0 if untouched else None,
            waits=len(found.waits) if found else 0 if untouched else None,
            computed_steps=found.computed_steps if found else computed,
            distances=found.distances if found else [],
        )
