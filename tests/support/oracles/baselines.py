"""Plain oracles of the baselines on tiny models, without any code of the package.

Each wrapper replaces the forward of a module or block. It decides by a set of steps that the test
gives, or by a number that the oracle measures itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.common_models import Tiny

# Kind, block list and module of a block, by model.
MODULES = {
    "latte": [
        ("spatial", "transformer_blocks", "attn1"),
        ("temporal", "temporal_transformer_blocks", "attn1"),
        ("cross", "transformer_blocks", "attn2"),
        ("mlp", "transformer_blocks", "ff"),
        ("mlp", "temporal_transformer_blocks", "ff"),
    ],
    "wan": [("spatial", "blocks", "attn1"), ("cross", "blocks", "attn2"), ("mlp", "blocks", "ffn")],
    "cogvideox": [
        ("spatial", "transformer_blocks", "attn1"),
        ("mlp", "transformer_blocks", "ff"),
    ],
}


class Steps:
    """The number of the running step, counted from 1, for a model that is called once per step."""

    def __init__(self, model: nn.Module) -> None:
        self.now = 0
        self._handle = model.register_forward_pre_hook(self._count)

    def _count(self, _model: nn.Module, _args: Any) -> None:
        self.now += 1

    def remove(self) -> None:
        self._handle.remove()


class StoredModule:
    """A module that returns its last output in the given steps."""

    def __init__(self, module: nn.Module, steps: Steps, reused: Iterable[int]) -> None:
        self.module, self.original = module, module.forward
        self.steps, self.reused = steps, set(reused)
        self.output: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.steps.now not in self.reused:
            self.output = self.original(*args, **kwargs)
        return self.output


class StoredBlock:
    """A block that adds its last residual while `reusing()`; CogVideoX has two streams."""

    def __init__(self, block: nn.Module, reusing: Callable[[], bool]) -> None:
        self.module, self.original, self.reusing = block, block.forward, reusing
        self.residuals: list[Tensor] = []
        self.x_in: Tensor

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        streams = [args[0] if args else kwargs["hidden_states"]]
        if "encoder_hidden_states" in kwargs:
            streams.append(kwargs["encoder_hidden_states"])
        self.x_in = streams[0]
        if not self.reusing():
            output = self.original(*args, **kwargs)
            outputs = output if isinstance(output, tuple) else (output,)
            self.residuals = [y - x for x, y in zip(streams, outputs, strict=False)]
            return output
        sums = tuple(x + r for x, r in zip(streams, self.residuals, strict=False))
        return sums if len(sums) > 1 else sums[0]


@contextmanager
def installed(wrappers: Iterable[Any], *steps: Steps) -> Iterator[None]:
    """Let each wrapper be the forward of its module inside the context."""
    wrappers = list(wrappers)
    for wrapper in wrappers:
        wrapper.module.forward = wrapper
    try:
        yield
    finally:
        for wrapper in wrappers:
            del wrapper.module.forward
        for each in steps:
            each.remove()


def stored_modules(
    name: str, model: nn.Module, steps: Steps, reused: dict[str, Iterable[int]], mlp_blocks: int = 5
) -> list[StoredModule]:
    """Return a wrapper for each module of the kinds in `reused`, which has the reused steps."""
    return [
        StoredModule(getattr(block, module), steps, reused[kind])
        for kind, attribute, module in MODULES[name]
        if kind in reused
        for index, block in enumerate(getattr(model, attribute))
        if kind != "mlp" or index < mlp_blocks
    ]


def blocks_of(tiny: Tiny, model: nn.Module) -> list[nn.Module]:
    """Return all blocks, list by list."""
    return [block for name in tiny.lists for block in getattr(model, name)]


class FirstBlock(StoredBlock):
    """A first block that always runs and decides whether the others are reused."""

    def __init__(self, block: nn.Module, threshold: float) -> None:
        super().__init__(block, lambda: False)
        self.threshold, self.reuse = threshold, False
        self.stored: Tensor | None = None
        self.changes: list[float] = []
        self.reused: list[bool] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = super().__call__(*args, **kwargs)
        now, self.reuse = self.residuals[0], False
        if self.stored is not None:
            change = ((now - self.stored).abs().mean() / self.stored.abs().mean()).item()
            self.changes.append(change)
            self.reuse = change < self.threshold
        if not self.reuse:
            self.stored = now
        self.reused.append(self.reuse)
        return output


class WatchedBlock(StoredBlock):
    """A first block whose attention input is compared, and that is reused with the others."""

    def __init__(
        self, block: nn.Module, threshold: float, steps: Steps, last: int, timestep: str | None
    ) -> None:
        super().__init__(block, lambda: self.reuse)
        self.threshold, self.steps, self.last, self.timestep = threshold, steps, last, timestep
        self.reuse, self.total = False, 0.0
        self.before: Tensor | None = None
        self.seen: list[Tensor] = []
        self.changes: list[float] = []
        self.reused: list[bool] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        now = self._watch(args, kwargs)
        self.reuse = False
        if self.before is not None and self.steps.now < self.last:
            change = ((now - self.before).abs().mean() / self.before.abs().mean()).item()
            self.changes.append(change)
            self.total += change
            self.reuse = self.total < self.threshold
        if not self.reuse:
            self.total = 0.0
        self.before = now
        self.reused.append(self.reuse)
        return super().__call__(*args, **kwargs)

    def _watch(self, args: Any, kwargs: Any) -> Tensor:
        if self.timestep is not None:
            positions = {"timestep": 4, "temb": 2}
            return kwargs.get(self.timestep, args[positions[self.timestep]] if args else None)
        handle = self.module.attn1.register_forward_pre_hook(
            lambda _module, given, named: self.seen.append(
                given[0] if given else named["hidden_states"]
            ),
            with_kwargs=True,
        )
        self.original(*args, **kwargs)
        handle.remove()
        return self.seen[-1]


class Layer(StoredBlock):
    """A block with its own AdaCache schedule: rate 1, 2 or 3 by two thresholds."""

    def __init__(
        self, block: nn.Module, steps: Steps, last: int, thresholds: tuple[float, float]
    ) -> None:
        super().__init__(block, lambda: False)
        self.steps, self.last, self.thresholds = steps, last, thresholds
        self.reusing = self.is_reused
        self.due, self.ran = 1, 0
        self.computed: list[int] = []

    def is_reused(self) -> bool:
        return self.steps.now < self.due and self.steps.now <= self.last - 2

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_reused():
            return super().__call__(*args, **kwargs)
        old = self.residuals
        output = super().__call__(*args, **kwargs)
        self.computed.append(self.steps.now)
        rate = 1
        if old:
            change = (old[0] - self.residuals[0]).abs().sum() / old[0].abs().sum()
            distance = change.item() / (self.steps.now - self.ran)
            low, high = self.thresholds
            rate = 3 if distance < low else 2 if distance < high else 1
        self.due, self.ran = self.steps.now + rate, self.steps.now
        return output


def relative(a: Tensor, b: Tensor) -> float:
    """Return the largest difference, relative to the largest value of `b`."""
    return float((a - b).abs().max() / b.abs().max())


def norms_ratio(residuals: list[Tensor]) -> list[float]:
    """Return the mean over tokens of each residual's norm over the one before; 1 for the first."""
    pairs = zip(residuals[1:], residuals, strict=False)
    return [1.0, *(float((b.norm(dim=-1) / a.norm(dim=-1)).mean()) for b, a in pairs)]


def everything_added(model: nn.Module, run: Callable[[], Any], attribute: str) -> list[Tensor]:
    """Return, for each step, what leaves the last block of a list minus what enters the first."""
    blocks, entered, added = getattr(model, attribute), [], []

    def enter(_block: Any, args: Any, kwargs: Any) -> None:
        entered.append(args[0] if args else kwargs["hidden_states"])

    def leave(_block: Any, _args: Any, output: Any) -> None:
        x = output[0] if isinstance(output, tuple) else output
        added.append(x - entered[-1])

    handles = [
        blocks[0].register_forward_pre_hook(enter, with_kwargs=True),
        blocks[-1].register_forward_hook(leave),
    ]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return added
