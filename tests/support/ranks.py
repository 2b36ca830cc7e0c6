"""Run a function in several processes, the ranks of a gloo group.

The processes are forks of a server that has imported the packages and started no thread. So a group
costs a fraction of a second, and not the imports of each rank.
"""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

MOST_SECONDS = 240.0
"""The time limit of a group, on a busy machine. A group that hangs fails the test."""
GROUP_TIMEOUT = timedelta(seconds=120)
PRELOADED = ["torch.distributed", "tests.support.ranks", "adacache_kernels", "diffusers"]


class RankFailed(AssertionError):
    """A rank has raised an error, died, or did not end in time."""


def run_ranks(
    size: int,
    function: Callable[..., Any],
    *args: Any,
    timeout: timedelta = GROUP_TIMEOUT,
    may_die: bool = False,
) -> list[Any]:
    """Return what `function(*args)` returns on each rank of a gloo group.

    Args:
        size: the number of ranks.
        function: a function of a module; it runs after the group is set up.
        args: its arguments; they are pickled.
        timeout: the timeout of the group.
        may_die: whether the result of a rank that fails is its `RankFailed`.

    Raises:
        RankFailed: a rank raised an error, died, or did not end in time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(size):
            ours, theirs = context.Pipe(duplex=False)
            values = (rank, size, str(Path(folder) / "store"), timeout, theirs, function, args)
            process = context.Process(target=_run, args=values, daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        try:
            return [_result(rank, pipe, may_die) for rank, pipe in enumerate(pipes)]
        finally:
            for process in processes:
                process.kill()
                process.join()


def _result(rank: int, pipe: Any, may_die: bool) -> Any:
    try:
        if not pipe.poll(MOST_SECONDS):
            raise RankFailed(f"rank {rank} did not end within {MOST_SECONDS:g} seconds")
        is_good, value = pickle.loads(pipe.recv_bytes())
        if not is_good:
            raise RankFailed(f"rank {rank} failed:\n{value}")
    except (EOFError, RankFailed) as error:
        failed = error if isinstance(error, RankFailed) else RankFailed(f"rank {rank} died")
        if not may_die:
            raise failed from None
        return failed
    return value


def _run(
    rank: int,
    size: int,
    store: str,
    timeout: timedelta,
    pipe: Any,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # diffusers asks for an accelerator before it makes its mesh; torch finds none on this machine.
    torch._C._get_accelerator = lambda: torch.device("cpu")  # type: ignore[assignment]
    torch.accelerator.device_count = lambda: 1
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timeout
        )
        result = True, function(*args)
    except BaseException:
        result = False, traceback.format_exc()
    # Tensors are sent by value: by default their memory would be shared, and this process ends.
    pipe.send_bytes(pickle.dumps(result))
