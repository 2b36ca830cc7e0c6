"""Runs methods against each other, video by video, and keeps a row for each.

Every video is first made in full and then by every method, one after the other, so that a machine
that gets slower gets slower for all. Rows go to a file video by video, and a run that was broken
off goes on where it stopped. A method that raises makes no more videos in this run, the others go
on.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from ..engine.summary import Summary
from ..measure.costs import counted_work, held_tensors, peak_memory, reset_peak_memory
from ..measure.lpips_vbench import lpips_distance
from ..measure.psnr_ssim import Video, psnr, ssim
from ..measure.timing import timed_forwards
from .contact_sheet import save_strip, strip_path
from .method_spec import FULL, Method, full
from .pipelines import Subject


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


class Study:
    """Methods on one pipeline.

    Args:
        subject: the pipeline.
        methods: to be compared.
        steps: of the full runs.
        lpips: whether to measure that distance.
        flops: whether to count the operations, the reads and the bytes held of the first video,
            for which it is made once more.

    `failures` are the methods that raised in the last run.
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
        self.failures: list[Failure] = []

    def run(
        self,
        cases: Sequence[Case],
        folder: Path,
        tell: Callable[[str, int, int], None] = lambda doing, done, total: None,
    ) -> list[Row]:
        """All rows, those of earlier runs in `folder` included.

        Raises:
            Exception: whatever the full run raises.
        """
        self.failures = []
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
        failed = {failure.method for failure in self.failures}
        return [row for row in rows if row.key in wanted and row.method not in failed]

    def video(self, method: Method, case: Case) -> Video:
        """One video, made for its frames alone."""
        return self._make(method, case).video

    def _of_case(
        self, case: Case, done: set[tuple[str, str, int]], *, counting: bool
    ) -> Iterator[tuple[Row, Video]]:
        failed = {failure.method for failure in self.failures}
        missing = [
            method
            for method in self.methods
            if (method.name, case.prompt, case.seed) not in done and method.name not in failed
        ]
        if not missing:
            return
        counting = counting and self._flops
        reference = self._make(self.methods[0], case)
        for method in missing:
            try:
                made = reference if method.name == FULL else self._make(method, case)
                counts = self._count(method, case) if counting else CountedCosts()
            except Exception as error:  # Whatever it is, the table has it.
                if method.name == FULL:
                    raise
                videos = sum(name == method.name for name, _, _ in done)
                self.failures.append(_failure(method, error, videos))
            else:
                yield self._row(method, case, made, reference, counts), made.video

    def _make(self, method: Method, case: Case) -> GeneratedVideo:
        pipe, device = self._subject.pipe, self._subject.device
        with method.applied(pipe) as tell:
            reset_peak_memory(device)
            with timed_forwards(pipe.transformer) as seconds:
                start = time.perf_counter()
                video = self._subject.generate(case.prompt, method.steps, case.seed)
                pipeline_seconds = time.perf_counter() - start
            return GeneratedVideo(
                video, sum(seconds), pipeline_seconds, peak_memory(device), tell()
            )

    def _count(self, method: Method, case: Case) -> CountedCosts:
        pipe = self._subject.pipe
        with ExitStack() as stack:
            # Before the method is on, so that what it allocates then counts as held.
            held = stack.enter_context(held_tensors(pipe.transformer))
            stack.enter_context(method.applied(pipe))
            work = stack.enter_context(counted_work(pipe.transformer))
            self._subject.generate(case.prompt, method.steps, case.seed)
        return CountedCosts(work.total, work.reads, held.bytes)

    def _row(
        self,
        method: Method,
        case: Case,
        made: GeneratedVideo,
        reference: GeneratedVideo,
        counts: CountedCosts,
    ) -> Row:
        value = psnr(made.video, reference.video)
        found = made.summary
        untouched = found is None and method.curve.startswith((FULL, "fewer steps"))
        computed = list(range(1, method.steps + 1)) if untouched else []
        count = round(found.computed_fraction * method.steps) if found else len(computed) or None
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
            flops=counts.flops,
            peak_bytes=made.peak_bytes,
            cache_bytes=found.cache_bytes if found else 0 if untouched else None,
            waits=len(found.waits) if found else 0 if untouched else None,
            computed_steps=found.computed_steps if found else computed,
            distances=found.distances if found else [],
            reads=counts.reads,
            held_bytes=counts.held_bytes,
            notes=tuple(method.notes),
        )


def _failure(method: Method, error: Exception, videos: int) -> Failure:
    first = (str(error).strip().splitlines() or [""])[0]
    return Failure(method.name, f"{type(error).__name__}: {first}", videos, tuple(method.notes))
