"""Time the overhead of a patched model on a CPU.

A computed step is compared with a step of the unpatched model. A reused step is compared with a
step of the same model without blocks.

    python -m bench.runtime.overhead                              # about 8 minutes on one thread
    python -m bench.runtime.overhead --models demo --rounds 200 --out /tmp/overhead

Each way to run a model has its own copy, which shares the weights. In every round each copy runs
one step, in random order. So other load slows all of them down. A ratio compares two steps of one
round. "unpatched again" runs the same code as "unpatched": its ratio shows the noise of this
machine. `bench/runtime/overhead_report.py` makes the tables.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import random
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

import adacache_kernels as ak
from bench.ops.run import KEEP_FREED_MEMORY, environment
from bench.runtime import overhead_report
from bench.runtime.overhead_models import SUBJECTS, Subject
from bench.runtime.overhead_report import COMPUTED, EMPTIED, FOLLOWED, REUSED, UNPATCHED, Row

GENERATION = 50
MOST_ROUNDS = 900
"""A reused step with a forecast needs its own coefficients, and there is room for 1024."""
ROUNDS = {"demo": 300, "latte": 24, "cogvideox": 36, "wan": 36}
WARM_UP = 3
LONGEST = 2 * MOST_ROUNDS + WARM_UP + 2
"""Steps of a generation that reuses in every round."""
# With this codebook no distance is small enough for reuse: it measures and stores.
NEVER = {"codebook": {1e-9: 2, 1.0: 1}}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "schedule of all steps": {"schedule": range(1, GENERATION + 1)},
    "codebook never reuses": NEVER,
    "forecast never reuses": {**NEVER, "forecast": 1, "correct": True, "measure": "forecast-error"},
    "reused": {"schedule": [1]},
    "reused, a line through two": {"schedule": [1, 2], "forecast": 1},
}


@dataclass
class Runner:
    """One way to run a model, step by step."""

    model: nn.Module
    inputs: tuple[Mapping[str, Any], ...]
    steps: int = 1
    made: int = 0

    def step(self) -> tuple[int, int]:
        """Run one step; return its nanoseconds of wall time, and of this process on all CPUs."""
        arguments = self.inputs[self.made % len(self.inputs)]
        # The inputs are used again, so only the caller knows the step.
        step = self.made % self.steps
        self.made += 1
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        with ak.cache_context("0", step_index=step, num_inference_steps=self.steps):
            self.model(**arguments)
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        return wall, cpu


def runners(subject: Subject) -> dict[str, Runner]:
    """Return a warm runner for every way: slots exist, and residuals to reuse are computed."""
    models: dict[str, nn.Module] = {
        UNPATCHED: subject.twin(),
        f"{UNPATCHED} again": subject.twin(),
        EMPTIED: subject.emptied(),
        f"{EMPTIED} again": subject.emptied(),
    }
    steps_of = dict.fromkeys(COMPUTED, GENERATION) | dict.fromkeys(REUSED, LONGEST)
    for name, steps in steps_of.items():
        models[name] = ak.patch(subject.twin(), num_inference_steps=steps, **SETTINGS[name])
    found = {
        name: Runner(model, subject.inputs, steps_of.get(name, GENERATION))
        for name, model in models.items()
    }
    for runner in found.values():
        for _ in range(WARM_UP):
            runner.step()
    return found


def measure(
    found: Mapping[str, Runner], rounds: int, seed: int
) -> dict[str, list[tuple[int, int]]]:
    """Return the nanoseconds, wall and CPU, of each way and round."""
    generator = random.Random(seed)
    order = list(found)
    times: dict[str, list[tuple[int, int]]] = {name: [] for name in found}
    for _ in range(rounds):
        generator.shuffle(order)
        for name in order:
            times[name].append(found[name].step())
            if name in FOLLOWED:
                times.setdefault(FOLLOWED[name], []).append(found[name].step())
    return times


def check(found: Mapping[str, Runner]) -> None:
    """Check that each patched model computed and reused the steps of its setting."""
    for name in COMPUTED:
        summary = ak.summary(found[name].model)
        assert not summary.reused_steps, f"{name} reused steps {summary.reused_steps}"
    for name in REUSED:
        computed = ak.summary(found[name].model).computed_steps
        assert computed == list(SETTINGS[name]["schedule"]), f"{name} computed {computed}"


def run(name: str, rounds: int, threads: int) -> list[Row]:
    """Return the rows of one model."""
    torch.set_num_threads(threads)
    subject = SUBJECTS[name]()
    with torch.no_grad():
        found = runners(subject)
        gc.collect()
        gc.freeze()  # The garbage collector then ignores the weights' objects during the timing.
        times = measure(found, rounds, seed=0)
        gc.unfreeze()
    check(found)
    return overhead_report.rows(subject.name, times)


def write(rows: list[Row], folder: Path, threads: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = {k: v for k, v in environment().items() if k not in ("roof", "caches")}
    about["threads"] = str(threads)
    with (folder / "overhead.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*(f.name for f in fields(Row)), *about])
        writer.writeheader()
        writer.writerows(asdict(row) | about for row in rows)
    (folder / "overhead.md").write_text(overhead_report.table(rows, about))


def _with_warm_memory() -> None:
    """Restart in a process that keeps freed memory, so that tensors cause no page faults."""
    if os.environ.get("MALLOC_TRIM_THRESHOLD_") != KEEP_FREED_MEMORY["MALLOC_TRIM_THRESHOLD_"]:
        os.execve(sys.executable, sys.orig_argv, os.environ | KEEP_FREED_MEMORY)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time what patching costs.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--models", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--rounds", type=int, help=f"up to {MOST_ROUNDS}; default: {ROUNDS}")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if not 1 <= (arguments.rounds or 1) <= MOST_ROUNDS:
        parser.error(f"--rounds is {arguments.rounds}, expected 1 to {MOST_ROUNDS}")
    _with_warm_memory()
    warnings.filterwarnings("ignore", ".*no step of", category=ak.AdaCacheWarning)
    rows = []
    for name in arguments.models:
        rows += run(name, arguments.rounds or ROUNDS[name], arguments.threads)
        print(f"{name} done", flush=True)
    write(rows, arguments.out, arguments.threads)
    print((arguments.out / "overhead.md").read_text())


if __name__ == "__main__":
    main()
