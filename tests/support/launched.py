"""Run the command `adacache` as the ranks of a launcher: processes with its variables.

The processes are forks of a server that has imported the packages, which saves the imports of each.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adacache_kernels.calibration import timed_runs
from adacache_kernels.cli import main as cli
from adacache_kernels.evaluate import pipelines
from adacache_kernels.evaluate.pipelines import Subject
from tests.support.tiny_calibration import fixed_seconds

MOST_SECONDS = 200.0
PRELOADED = ["tests.support.launched", "tests.support.tiny_study", "matplotlib.pyplot", "tqdm"]
PRELOADED += ["torch.distributed"]


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit code, output, errors, and number of generations."""

    code: int | None
    out: str
    errors: str
    generated: int


@dataclass(frozen=True)
class Launch:
    """A command and how its ranks run.

    Args:
        words: of the command.
        folder: for the output of the processes.
        subject: builds the pipeline on each rank.
        dying: number of the generation in which rank 1 kills itself; 0 for none.
        prepare: called on each rank with its pipeline, before the command uses it.
    """

    words: Sequence[str]
    folder: Path
    subject: Callable[[], Subject]
    dying: int = 0
    prepare: Callable[[Any], None] | None = None


def launch(launched: Launch, size: int = 2, ranks: Sequence[int] | None = None) -> list[Ended]:
    """Run a command on ranks of a launcher, by default on all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    started = list(range(size)) if ranks is None else ranks
    processes = [context.Process(target=_run, args=(launched, rank, size)) for rank in started]
    for process in processes:
        process.start()
    for process in processes:
        process.join(MOST_SECONDS)
        process.kill()
        process.join()
    pairs = zip(started, processes, strict=True)
    return [_ended(launched.folder, rank, process.exitcode) for rank, process in pairs]


def join_group(_pipe: Any) -> None:
    """Set up a gloo group of all ranks, as a pipeline's file may do."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = f"file://{os.environ['LAUNCHED_FOLDER']}/store"
    torch.distributed.init_process_group("gloo", store, rank=rank, world_size=size)


def _ended(folder: Path, rank: int, code: int | None) -> Ended:
    out, errors, generated = (
        (folder / f"{name}-{rank}").read_text() for name in ("out", "errors", "generated")
    )
    return Ended(code, out, errors, len(generated))


def _run(launched: Launch, rank: int, size: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ["LAUNCHED_FOLDER"] = str(launched.folder)
    for descriptor, name in ((1, "out"), (2, "errors")):
        path = launched.folder / f"{name}-{rank}"
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    counter = (launched.folder / f"generated-{rank}").open("w")
    timed_runs.timed_forwards = fixed_seconds  # type: ignore[assignment]

    def load(*_: Any, **__: Any) -> Subject:
        subject = launched.subject()
        if launched.prepare is not None:
            launched.prepare(subject.pipe)
        generate, count = subject.generate, 0

        def counted(prompt: str, steps: int, seed: int) -> Any:
            nonlocal count
            count += 1
            if rank == 1 and count == launched.dying:
                os.kill(os.getpid(), signal.SIGKILL)
            counter.write(".")
            counter.flush()
            return generate(prompt, steps, seed)

        return Subject(subject.pipe, counted)

    pipelines.load = load
    code = cli.main(list(launched.words))
    os._exit(code)
