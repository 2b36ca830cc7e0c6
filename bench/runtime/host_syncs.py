"""Count how often the host waits for the device in a step, and how often compiled graphs break.

    python -m bench.runtime.host_syncs

Each method, of this package or another, runs one generation of a tiny Wan model. The spy of
`tests/support/cuda_tensor_spy` counts waits on fake CUDA tensors. It answers reads so that a method
both computes and reuses steps. torch's own counters count graph breaks on CPU tensors, with the
backend "eager". Writes `results/host_syncs.md`.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from bench.runtime.host_sync_peers import LAYERS, METHODS, STEPS, Method, Now, context
from tests.support.cuda_tensor_spy import SyncSpy, fake_cuda, to_fake_cuda
from tests.support.cuda_tensor_spy.patched import fake_parts
from tests.support.tiny_models.common_models import TINY

RESULT = Path(__file__).parent / "results" / "host_syncs.md"
WAN = replace(TINY["wan"], config=dict(TINY["wan"].config, num_layers=LAYERS))
aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default}
ABOUT = f"""# Waits for the device, graph breaks

By `python -m bench.runtime.host_syncs`, torch {{torch}}, {{packages}}. A Wan model of {LAYERS}
small blocks, one generation of {STEPS} steps, one call a step; each method with its defaults.

The table shows the fewest and the most waits of the host in a step, from the second step on. A step
is reused if it runs fewer matrix products than the unpatched model. A wait is a value that the host
reads, a copy to the host, or a copy to the device from memory that is not pinned. There was no GPU:
the tensors are CUDA tensors without values. If a method reads a condition, it gets True; if it
reads numbers, every third one is 1 and the others are 0. `adacache_kernels` can also wait if the
device has no decision yet when the next step begins; its `summary()` counts these host waits.

`torch.compile` (backend "eager", CPU tensors) makes the graphs and breaks of one generation, with
each block compiled alone and with the whole model compiled. The number in brackets is that of
breaks at functions marked `torch.compiler.disable`. A block with a marked forward makes no graph.

"""


class Products(TorchDispatchMode):
    """A counter of matrix products."""

    count = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += op in PRODUCTS
        return op(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Step:
    """The matrix products of one step, and the waits of the host in it."""

    products: int
    waits: int


@dataclass(frozen=True)
class Breaks:
    """The graphs of a compiled generation and their breaks.

    Args:
        graphs: number of graphs.
        breaks: number of graph breaks.
        disabled: graph breaks at functions marked `torch.compiler.disable`.
    """

    graphs: int
    breaks: int
    disabled: int

    def __str__(self) -> str:
        disabled = f" ({self.disabled})" if self.disabled else ""
        return f"{self.graphs} / {self.breaks}{disabled}"


@contextmanager
def enabled(method: Method, model: nn.Module) -> Iterator[Now]:
    """Turn the method on for the model, and off at the end."""
    now = Now()
    method.enable(model, now)
    try:
        yield now
    finally:
        method.disable(model)


def steps_of(method: Method) -> list[Step]:
    """Run one generation on fake CUDA tensors, and return its steps."""
    model, values, steps = WAN.build(), itertools.cycle([0.0, 0.0, 1.0]), []

    def answer(x: Tensor) -> bool | float:
        return True if x.dtype == torch.bool else next(values)

    with (
        fake_cuda(),
        fake_parts(),
        torch.no_grad(),
        Products() as products,
        SyncSpy(answer) as spy,
        enabled(method, to_fake_cuda(model)) as now,
    ):
        text = fake_inputs()["encoder_hidden_states"]
        for step in range(STEPS):
            # A prompt that is made anew in every step counts as changed.
            inputs = fake_inputs() | {"encoder_hidden_states": text}
            now.timestep = inputs["timestep"][0]
            products.count = 0
            spy.waits.clear()
            with context(model, step):
                model(**inputs)
            steps.append(Step(products.count, len(spy.waits)))
    return steps


def fake_inputs() -> dict[str, Any]:
    return {
        "hidden_states": torch.empty(1, *WAN.latents, device="cuda"),
        "encoder_hidden_states": torch.empty(1, 6, WAN.text_channels, device="cuda"),
        "timestep": torch.empty(1, dtype=torch.int64, device="cuda"),
        "return_dict": False,
    }


def breaks_of(method: Method, *, blocks: bool) -> Breaks:
    """Run one compiled generation on CPU tensors, and return its graphs and breaks."""
    torch._dynamo.reset()
    counters.clear()
    model, latents = WAN.build(), WAN.noise()
    with torch.no_grad(), enabled(method, model) as now:
        run = model if blocks else torch.compile(model, backend="eager")
        if blocks:
            for block in model.blocks:
                block.compile(backend="eager")
        for step in range(STEPS):
            now.timestep = torch.tensor(900 - 40 * step)
            with context(model, step):
                latents = latents - 0.02 * WAN.call(run, latents, step + 1)
    reasons = counters["graph_break"]
    disabled = sum(n for reason, n in reasons.items() if "torch.compiler.disable" in reason)
    return Breaks(counters["stats"]["unique_graphs"], sum(reasons.values()), disabled)


def breaks_or_why_not(method: Method, *, blocks: bool) -> str:
    """Return a cell of the table: graphs and breaks, or the error of a method that fails."""
    try:
        return str(breaks_of(method, blocks=blocks))
    except Exception as error:  # The table shows any error.
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0].split(';')[0]}"


def row(method: Method, all_products: int) -> str:
    """Return a line of the table; a step that reuses nothing has `all_products` products."""
    if not method.is_installed:
        return f"| {method.name} | not in the {method.package} installed, if any | | | | | |"
    steps = steps_of(method)
    computed = [step.waits for step in steps[1:] if step.products == all_products]
    reused = [step.waits for step in steps[1:] if step.products < all_products]
    cells = [
        method.name,
        f"{len(reused)} of {STEPS}",
        span(computed),
        span(reused),
        str(sum(step.waits for step in steps)),
        breaks_or_why_not(method, blocks=True),
        breaks_or_why_not(method, blocks=False),
    ]
    return f"| {' | '.join(cells)} |"


def span(counts: Sequence[int]) -> str:
    """Return the lowest and the highest count."""
    if not counts:
        return "-"
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def table(methods: Sequence[Method]) -> str:
    """Return the table, one line a method."""
    all_products = steps_of(METHODS[0])[0].products
    lines = [
        "| method | reused steps | waits in a computed step | in a reused step | in the generation "
        "| graphs / breaks, blocks compiled | graphs / breaks, model compiled |",
        "|---|---|---|---|---|---|---|",
        *(row(method, all_products) for method in methods),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT, help="the file to write")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    packages = {f"{m.package} {m.version}" for m in METHODS if m.is_installed}
    about = ABOUT.format(torch=torch.__version__, packages=", ".join(sorted(packages)))
    text = about + table(METHODS) + "\n"
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
