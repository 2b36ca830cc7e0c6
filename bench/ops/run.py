"""Time each op against eager PyTorch, `torch.compile`, the authors' code and its roof, on a CPU.

    python -m bench.ops.run --out bench/ops/results        # sizes 1 to 256 MiB a tensor, 10 minutes
    python -m bench.ops.run --out /tmp/ops --quick         # 16 MiB, under 3 minutes

A size is that of one tensor; an op has two to five of them. A size that fits into the caches (see
`environment.json`) is measured in the caches. There the limit is a simple loop, not the memory.

Up to 16 MiB, every provider is checked against the reference before it is timed. In each round,
every provider has one turn, in random order. A turn makes calls for 2 ms, from Python, on tensors
that exist already. Each number of threads has its own process, because `torch.compile` generates
code for one number. The process keeps freed memory, so that temporaries of eager PyTorch cause no
page faults.

The benchmark writes the rounds to `raw.csv`; `bench/ops/report.py` makes the tables and the plot.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch

from adacache_kernels import __version__
from bench.ops import report as op_report
from bench.ops import roof
from bench.ops.cases import Case, Provider, Tensors, cases, shape_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TURN_NS = 2_000_000
CHECKED_MB = 16  # Larger tensors run the same code, and checking takes longer than timing.
LATENCY_MB = 1  # For cases in which our op moves no data; others may move some.
# OpenMP's workers spin after their last loop. Without a pause they would disturb the next turn.
PAUSE_SECONDS = 0.003
# By default, glibc returns freed blocks above 32 MiB to the system at once.
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**36),
    "MALLOC_TOP_PAD_": str(2**26),
}


@dataclass(frozen=True)
class Plan:
    """The points to measure: sizes in MiB a tensor, dtypes, numbers of threads, rounds.

    Only cases with `part_of_name` in their key are measured.
    """

    sizes: tuple[float, ...]
    dtypes: tuple[str, ...] = ("fp32", "bf16")
    threads: tuple[int, ...] = (1, 2)
    rounds: int = 15
    compiled: bool = True
    part_of_name: str = ""


FULL = Plan(sizes=(1, 16, 64, 256), rounds=5)
QUICK = Plan(sizes=(16,), rounds=5)  # Compiling takes most of the time, once for each size.
SMOKE = Plan(sizes=(0.25, 0.5), threads=(1,), rounds=2, compiled=False)


@dataclass(frozen=True)
class Row:
    """The milliseconds a call of one provider at one point, one number a round, space-separated."""

    op: str
    case: str
    provider: str
    dtype: str
    size_mb: float
    threads: int
    bytes: int
    calls: int
    ms: str


def points(plan: Plan) -> Iterator[tuple[Case, str, float]]:
    """Yield case, dtype and size of each point of one number of threads."""
    for case in cases():
        if plan.part_of_name not in case.key:
            continue
        dtypes = ("fp32",) if case.op == "decide" else plan.dtypes
        for dtype in dtypes:
            for size in (LATENCY_MB,) if case.latency else plan.sizes:
                yield case, dtype, size


def compiled(case: Case) -> Provider:
    """Return the eager code of a case, compiled by `torch.compile`."""
    torch._dynamo.reset()  # Otherwise the code of other sizes counts towards a limit.
    return torch.compile(case.eager, fullgraph=True, dynamic=False)


def calls_of(
    case: Case, tensors: Tensors, compiling: bool, checking: bool
) -> dict[str, Callable[[], object]]:
    """Return a call of each provider on the tensors; check the providers before, if `checking`."""
    providers = case.providers()
    if providers.pop("compile", None) and compiling:
        providers["compile"] = compiled(case)
    if checking:
        case.check(providers, tensors)
    return {name: partial(provider, **tensors) for name, provider in providers.items()}


def measure(
    calls: dict[str, Callable[[], object]], rounds: int, generator: random.Random
) -> dict[str, tuple[int, list[float]]]:
    """Return for each provider the calls in a turn, and the milliseconds a call of each turn."""
    counts = {name: _calls_in_a_turn(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(rounds):
        generator.shuffle(order)
        for name in order:
            time.sleep(PAUSE_SECONDS)
            if counts[name] > 1:
                calls[name]()  # Not timed: the caches still hold data of another provider.
            times[name].append(_nanoseconds(calls[name], counts[name]) / 1e6)
    return {name: (counts[name], times[name]) for name in calls}


def _calls_in_a_turn(call: Callable[[], object]) -> int:
    call()
    once = _nanoseconds(call, 1)
    if once < TURN_NS:
        once = _nanoseconds(call, 3)
    return max(1, round(TURN_NS / once + 0.5))


def _nanoseconds(call: Callable[[], object], count: int) -> float:
    begin = time.perf_counter_ns()
    for _ in range(count):
        call()
    return (time.perf_counter_ns() - begin) / count


def work(plan: Plan, threads: int, raw: Path | None) -> None:
    """Measure all points with this number of threads and append them to `raw`.

    If `raw` is None, only compile the code.
    """
    import torch._inductor.config as inductor

    torch.set_num_threads(threads)
    inductor.cpp.threads = threads
    generator = random.Random(threads)
    gc.disable()
    for case, dtype, size in points(plan):
        tensors = case.make(shape_of(size, DTYPES[dtype]), DTYPES[dtype])
        if raw is None:
            if case.compiled:
                compiled(case)(**tensors)
            continue
        calls = calls_of(case, tensors, plan.compiled, size <= CHECKED_MB)
        times = measure(calls, plan.rounds, generator)
        moved = case.bytes(tensors)
        with raw.open("a", newline="") as file:
            writer = csv.writer(file)
            for name, (count, each) in times.items():
                row = Row(case.op, case.name, name, dtype, size, threads, moved, count, _join(each))
                writer.writerow(asdict(row).values())
        print(f"{threads} thread(s), {case.key}, {dtype}, {size:g} MiB", flush=True)


def _join(milliseconds: list[float]) -> str:
    return " ".join(f"{value:.5g}" for value in milliseconds)


def run(plan: Plan, folder: Path) -> None:
    """Write `raw.csv` and `environment.json` in `folder`, then its report."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / "raw.csv"
    (folder / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n")
    with raw.open("w", newline="") as file:
        csv.writer(file).writerow([field.name for field in fields(Row)])
    if plan.compiled:
        print("compiling", flush=True)
        # In parallel this takes half the time; inductor's cache stores the results.
        compilers = [_start(replace(plan, threads=(count,)), None) for count in plan.threads]
        _wait(compilers)
    for count in plan.threads:
        _wait([_start(replace(plan, threads=(count,)), raw)])
    op_report.write(folder)


def _start(plan: Plan, raw: Path | None) -> subprocess.Popen[bytes]:
    (threads,) = plan.threads
    work_on = json.dumps({"plan": asdict(plan), "raw": None if raw is None else str(raw)})
    variables = os.environ | KEEP_FREED_MEMORY | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [sys.executable, "-m", "bench.ops.run", "--work", work_on], env=variables
    )


def _wait(processes: list[subprocess.Popen[bytes]]) -> None:
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit("a part of the benchmark failed, see above")


def environment() -> dict[str, str]:
    """Return the hardware and software that the figures depend on."""
    return {
        "cpu": _cpu(),
        "caches": _caches(),
        "instruction_set": _instruction_set(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "adacache_kernels": __version__,
        "commit": _commit(),
        "roof": "g++ " + " ".join(roof.FLAGS),
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _caches() -> str:
    indices = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    caches = []
    for index in indices:
        level, kind, size = (
            (index / name).read_text().strip() for name in ("level", "type", "size")
        )
        if kind != "Instruction":
            caches.append(f"L{level} {size}")
    return ", ".join(caches)


def _instruction_set() -> str:
    from adacache_kernels import _native

    names = getattr(_native.module(), "instruction_sets", lambda: ["baseline"])()
    return names[-1]


def _commit() -> str:
    """Return the commit, with a + if tracked files have changed since."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        given = json.loads(sys.argv[2])
        plan = Plan(**given["plan"])
        work(plan, plan.threads[0], given["raw"] and Path(given["raw"]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--full", dest="plan", action="store_const", const=FULL, default=FULL)
    form.add_argument("--quick", dest="plan", action="store_const", const=QUICK)
    form.add_argument("--smoke", dest="plan", action="store_const", const=SMOKE,
                      help="seconds: does it run?")  # fmt: skip
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1 2")
    parser.add_argument("--dtypes", choices=DTYPES, nargs="+", help="default: both")
    parser.add_argument("--cases", default="", help='part of their names, such as "one residual"')
    arguments = parser.parse_args()
    plan = replace(arguments.plan, part_of_name=arguments.cases)
    for name in ("threads", "dtypes"):
        if getattr(arguments, name):
            plan = replace(plan, **{name: tuple(getattr(arguments, name))})
    run(plan, arguments.out)
    print((arguments.out / "table.md").read_text())


if __name__ == "__main__":
    main()
