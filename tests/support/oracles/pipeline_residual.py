"""A plain oracle for pipelines: each block stores its residual for each stream and call of a step.

It has nothing of the package but the names of lists and streams. It reads the timestep to
recognise a step, and counts the calls in it.
"""

from __future__ import annotations

import inspect
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adacache_kernels.models import Adapter, Stream, adapter_for

TIMES = ("timestep", "timesteps", "t", "vision_timesteps")


def names(module: nn.Module) -> list[str]:
    return list(inspect.signature(module.forward).parameters)


class Calls:
    """A counter of steps, from 1, and of the calls in each step, from 0.

    Args:
        num_steps: steps of a generation; then the next generation begins.
        computed: steps whose blocks run.
        always: calls whose blocks run in every step.
    """

    def __init__(self, num_steps: int, computed: Container[int], always: Container[int]) -> None:
        self._num_steps, self._computed, self._always = num_steps, computed, always
        self._time: Tensor | None = None
        self._size: object = None
        self.step, self.call = 0, 0

    @property
    def is_computed(self) -> bool:
        return self.step in self._computed or self.call in self._always

    def begin(self, time: Tensor, latents: Tensor | list[Tensor]) -> None:
        """Count a call. Calls of one step have the same time and size, whatever their batch."""
        now = time.flatten(1)[0] if time.dim() > 1 else time[:1]
        size = latents[0].shape
        if self._time is not None and torch.equal(now, self._time) and size == self._size:
            self.call += 1
            return
        self._time, self._size = now.clone(), size
        self.step, self.call = self.step % self._num_steps + 1, 0


class StoredBlock:
    """A block's forward that stores its residuals in computed steps, and else adds them."""

    def __init__(
        self, block: nn.Module, streams: Sequence[Stream], passed: Sequence[Stream]
    ) -> None:
        self._forward, self._names = block.forward, names(block)
        self._streams, self._passed = streams, passed
        self._added: dict[int, list[Tensor | None]] = {}

    def run(self, calls: Calls, args: Any, kwargs: Any) -> Any:
        given = dict(zip(self._names, args, strict=False)) | kwargs
        inputs = [given.get(stream.parameter) for stream in self._streams]
        if calls.is_computed or calls.call not in self._added:
            output = self._forward(*args, **kwargs)
            self._added[calls.call] = [
                None if x is None else stream.read(output) - x
                for stream, x in zip(self._streams, inputs, strict=True)
            ]
            return output
        added = self._added[calls.call]
        values = [None if x is None else x + r for x, r in zip(inputs, added, strict=True)]
        values += [given.get(stream.parameter) for stream in self._passed]
        indices = [stream.output for stream in (*self._streams, *self._passed)]
        if indices == [None]:
            return values[0]
        by_index = dict(zip(indices, values, strict=True))
        return tuple(by_index.get(index) for index in range(max(map(int, by_index)) + 1))


def _adapter(model: nn.Module) -> Adapter:
    adapter = adapter_for(model)
    assert isinstance(adapter, Adapter)
    return adapter


@contextmanager
def stored_blocks(
    models: Sequence[nn.Module],
    num_steps: int,
    computed: Container[int],
    always: Container[int] = (),
) -> Iterator[None]:
    """Let the models, which share the steps, reuse a residual per block and stream inside."""
    calls = Calls(num_steps, computed, always)
    changed: list[nn.Module] = []

    def install(module: nn.Module, forward: Any) -> None:
        vars(module)["forward"] = forward
        changed.append(module)

    def counted(model: nn.Module) -> Any:
        original, parameters = model.forward, names(model)

        def forward(*args: Any, **kwargs: Any) -> Any:
            given = dict(zip(parameters, args, strict=False)) | kwargs
            time = next(given[name] for name in TIMES if name in given)
            calls.begin(time, given[parameters[0]])
            return original(*args, **kwargs)

        return forward

    def stored(block: StoredBlock) -> Any:
        return lambda *args, **kwargs: block.run(calls, args, kwargs)

    # The adapter is found by the model's own forward, so before that is replaced.
    adapters = [_adapter(model) for model in models]
    try:
        for model, adapter in zip(models, adapters, strict=True):
            install(model, counted(model))
            for blocks in adapter.lists:
                for block in blocks.modules(model).values():
                    install(block, stored(StoredBlock(block, blocks.streams, blocks.passed)))
        yield
    finally:
        for module in changed:
            del vars(module)["forward"]
