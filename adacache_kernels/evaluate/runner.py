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
from dataclasses import asdict
from pathlib import Path

from ..measure.costs import counted_work, held_tensors, peak_memory, reset_peak_memory
from ..measure.lpips_vbench import lpips_distance
from ..measure.psnr_ssim import Video, psnr, ssim
from ..measure.timing import timed_forwards
from .contact_sheet import save_strip, strip_path
from .method_spec import FULL, Method, full
from .pipelines import Subject
from .results import Case, CountedCosts, Failure, GeneratedVideo, Row, read


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
