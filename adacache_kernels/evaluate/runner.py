"""Run methods against each other, video by video, and write a row for each.

Every video is generated in full first, and then by every method, so that a slower machine slows all
of them down. Rows are written video by video, and an interrupted run resumes at the next row. A
method that raises an error generates no more videos in this run; the others continue.
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
from ..measure.lpips_vbench import lpips_distance, vbench_scores
from ..measure.psnr_ssim import psnr, ssim
from ..measure.shared_work import SharedWork
from ..measure.timing import timed_forwards
from .contact_sheet import save_strip, strip_path
from .method_spec import FEWER_STEPS, FULL, Method, full_method
from .pipelines import Subject
from .results import (
    Case,
    CountedCosts,
    Failure,
    GeneratedVideo,
    Row,
    append_row,
    end_last_line,
)
from .rows_of_ranks import Key, join_failures, join_rows, read_all_rows, rows_path


class Study:
    """A comparison of methods on one pipeline.

    `failures` are the methods that raised an error in the last run.

    Args:
        subject: the pipeline.
        methods: to compare; the full run is added.
        steps: of the full runs.
        lpips: measure LPIPS.
        flops: count the operations, host reads and held bytes of the first video, in one more
            generation by each method.
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
        self.methods = [full_method(steps), *methods]
        self._lpips = lpips
        self._flops = flops
        self.failures: list[Failure] = []

    def run(
        self,
        cases: Sequence[Case],
        folder: Path,
        progress: Callable[[str, int, int], None] = lambda doing, done, total: None,
        work: SharedWork | None = None,
    ) -> list[Row]:
        """Generate the videos that have no row in `folder`, and return the rows of all cases.

        Rows of methods that failed are left out.

        Args:
            cases: the videos.
            folder: of `rows.jsonl` and the strips.
            progress: called after each row with a description, the number of rows so far, and their
                total.
            work: ranks that share out the cases; by default, this one does all. Only rank 0 returns
                rows.

        Raises:
            ValueError: rows in `folder` cannot be read.
            OSError: rows cannot be written, for instance on a full disk.
            MissingRankError: another rank has died or stopped.
            Exception: any error of a full run.
        """
        work = work or SharedWork()
        self.failures = []
        folder.mkdir(parents=True, exist_ok=True)
        path = rows_path(folder, work.rank)
        keys = [(m.name, case.prompt, case.seed) for case in cases for m in self.methods]
        share, done = self._share(cases, folder, work)
        wanted = {(m.name, case.prompt, case.seed) for case in share for m in self.methods}
        done &= wanted
        end_last_line(path)
        with path.open("ab", buffering=0) as file:
            for case in share:
                counts = self._flops and case == cases[0]
                for row, generated in self._missing_rows(case, done, counts):
                    done.add(row.key)
                    save_strip(generated.video, strip_path(folder, row))
                    append_row(file, row)
                    progress(f"{case.prompt}: {row.method}", len(done), len(wanted))
        gathered = work.gather("failures", [asdict(failure) for failure in self.failures])
        if work.rank > 0:
            return []
        rows = [row for row in join_rows(folder, keys) if row.key in set(keys)]
        self.failures = join_failures(gathered, rows)
        failed = self._failed()
        return [row for row in rows if row.method not in failed]

    def _share(
        self, cases: Sequence[Case], folder: Path, work: SharedWork
    ) -> tuple[list[Case], set[Key]]:
        """Return the cases of this rank, and the rows that are there.

        With several ranks, it is a part of the cases that lack a row. No rank writes a row before
        rank 0 has told which these are.
        """
        if work.rank > 0:
            missing = json.loads(work.told("cases", 0))
        done = {row.key for row in read_all_rows(folder)}
        if work.size == 1:
            return list(cases), done
        if work.rank == 0:
            missing = [
                index
                for index, case in enumerate(cases)
                if any((m.name, case.prompt, case.seed) not in done for m in self.methods)
            ]
            work.tell("cases", json.dumps(missing).encode())
        share = [cases[index] for place, index in enumerate(missing) if work.is_own(place)]
        return share, done

    def vbench_means(self, cases: Sequence[Case]) -> dict[str, float]:
        """Return the mean of VBench's dimensions for each method that has not failed.

        All videos are generated once more for it.
        """
        prompts = [case.prompt for case in cases]
        means = {}
        failed = self._failed()
        for method in (m for m in self.methods if m.name not in failed):
            videos = [self._generate(method, case).video for case in cases]
            scores = vbench_scores(videos, prompts)
            means[method.name] = sum(scores.values()) / len(scores)
        return means

    def _failed(self) -> set[str]:
        return {failure.method for failure in self.failures}

    def _missing_rows(
        self, case: Case, done: set[tuple[str, str, int]], counts: bool
    ) -> Iterator[tuple[Row, GeneratedVideo]]:
        failed = self._failed()
        missing = [
            method
            for method in self.methods
            if (method.name, case.prompt, case.seed) not in done and method.name not in failed
        ]
        if not missing:
            return
        reference = self._generate(self.methods[0], case)
        for method in missing:
            try:
                generated = reference if method.name == FULL else self._generate(method, case)
                costs = self._count(method, case) if counts else CountedCosts()
            except Exception as error:  # Any error becomes a row of the table.
                if method.name == FULL:
                    raise
                videos = sum(name == method.name for name, _, _ in done)
                self.failures.append(_failure(method, error, videos))
            else:
                yield self._row(method, case, generated, reference, costs), generated

    def _generate(self, method: Method, case: Case) -> GeneratedVideo:
        pipe, device = self._subject.pipe, self._subject.device
        with method.applied(pipe) as last_summary:
            reset_peak_memory(device)
            with timed_forwards(pipe.transformer) as seconds:
                start = time.perf_counter()
                video = self._subject.generate(case.prompt, method.steps, case.seed)
                pipeline_seconds = time.perf_counter() - start
            return GeneratedVideo(
                video, sum(seconds), pipeline_seconds, peak_memory(device), last_summary()
            )

    def _count(self, method: Method, case: Case) -> CountedCosts:
        pipe = self._subject.pipe
        with ExitStack() as stack:
            # Before the method is applied: what it allocates at that time counts as held.
            held = stack.enter_context(held_tensors(pipe.transformer))
            stack.enter_context(method.applied(pipe))
            work = stack.enter_context(counted_work(pipe.transformer))
            self._subject.generate(case.prompt, method.steps, case.seed)
        return CountedCosts(work.total, work.reads, held.bytes)

    def _row(
        self,
        method: Method,
        case: Case,
        generated: GeneratedVideo,
        reference: GeneratedVideo,
        costs: CountedCosts,
    ) -> Row:
        value = psnr(generated.video, reference.video)
        summary = generated.summary
        no_cache = summary is None and method.curve.startswith((FULL, FEWER_STEPS))
        all_steps = list(range(1, method.steps + 1)) if no_cache else []
        computed = summary.computed_fraction * method.steps if summary else len(all_steps)
        nothing = 0 if no_cache else None
        return Row(
            method=method.name,
            curve=method.curve,
            prompt=case.prompt,
            seed=case.seed,
            scheduled=method.steps,
            computed=round(computed) if summary or no_cache else None,
            psnr=value if math.isfinite(value) else None,
            ssim=ssim(generated.video, reference.video),
            lpips=lpips_distance(generated.video, reference.video) if self._lpips else None,
            seconds=generated.seconds,
            pipeline_seconds=generated.pipeline_seconds,
            full_seconds=reference.seconds,
            full_pipeline_seconds=reference.pipeline_seconds,
            flops=costs.flops,
            peak_bytes=generated.peak_bytes,
            cache_bytes=summary.cache_bytes if summary else nothing,
            waits=len(summary.waits) if summary else nothing,
            computed_steps=summary.computed_steps if summary else all_steps,
            distances=summary.distances if summary else [],
            reads=costs.reads,
            held_bytes=costs.held_bytes,
            notes=tuple(method.notes),
        )


def _failure(method: Method, error: Exception, videos: int) -> Failure:
    first_line = (str(error).strip().splitlines() or [""])[0]
    return Failure(
        method.name, f"{type(error).__name__}: {first_line}", videos, tuple(method.notes)
    )
