"""Count the collectives of a split model, time it on a CPU, and compute speedups of GPUs.

    python -m bench.runtime.scaling                    # about 15 minutes on two shared cores
    python -m bench.runtime.scaling --computed-only    # the computed table and the figure
    python -m bench.runtime.scaling --out /tmp/scaling --rounds 1 --repeats 2

Every round runs each number of ranks once, in a new group of processes. In a group, every repeat
runs each way once, in random order. Writes to `bench/runtime/results/scaling`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from bench.runtime.scaling import predict, report
from bench.runtime.scaling.figure import draw
from bench.runtime.scaling.ranks import Size, count_all_on_rank, time_on_rank
from tests.support.ranks import run_ranks

RANKS = (1, 2, 4)
RESULTS = Path(__file__).parents[1] / "results" / "scaling"


def measure(folder: Path, rounds: int, repeats: int) -> None:
    """Write `counts.md` and `times.json`."""
    size = Size()
    counted = {ranks: run_ranks(ranks, count_all_on_rank, size)[0] for ranks in RANKS}
    (folder / "counts.md").write_text(report.counts(counted, size))
    times: list[dict[str, object]] = []
    for number in range(rounds):
        for ranks in RANKS:
            of_ways = run_ranks(ranks, time_on_rank, size, repeats, number)[0]
            for way, seconds in of_ways.items():
                times.append({"round": number, "ranks": ranks, "way": way, "seconds": seconds})
            about = {"torch": torch.__version__, "repeats": repeats, "times": times}
            (folder / "times.json").write_text(json.dumps(about, indent=1) + "\n")
            print(f"round {number + 1}, {ranks} ranks done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speedup against the number of ranks.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--computed-only", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.computed_only:
        measure(arguments.out, arguments.rounds, arguments.repeats)
    times = json.loads((arguments.out / "times.json").read_text())["times"]
    (arguments.out / "times.md").write_text(report.times(times))
    (arguments.out / "computed.md").write_text(predict.markdown())
    draw(times, arguments.out / "scaling.png")


if __name__ == "__main__":
    main()
