"""The plain oracle for pipelines: each block keeps what it added to each stream, for each call.

Written for the tests, with nothing of the package but the names of lists and streams: a step is
told by its timestep, which is read, and a call by its place in the step.
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
    """Counts steps, from 1, and the calls in each, from 0.

    Args:
        num_steps: of a generation; the next one begins after them.
        computed: steps whose blocks run.
        always: calls whose blocks run in each step.
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
        """Calls of one step have the same time and size, whatever their batch."""
        now = time.flatten(1)[0] if time.dim() > 1 else time[:1]
        size = latents[0].shape
        if self._time is not None and torch.equal(now, self._time) and size == self._size:
            self.call += 1
            return
        self._time, self._size = now.clone(), size
        self.step, self.call = self.step % self._num_steps + 1, 0


class KeptBlock:
    """A block's forward that keeps what it added to each stream, and adds that in reused steps."""

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
        places = [stream.output for stream in (*self._streams, *self._passed)]
        if places == [None]:
            return values[0]
        by_place = dict(zip(places, values, strict=True))
        return tuple(by_place.get(place) for place in range(max(map(int, by_place)) + 1))


def _adapter(model: nn.Module) -> Adapter:
    adapter = adapter_for(model)
    assert isinstance(adapter, Adapter)
    return adapter


@contextmanager
def kept_blocks(
    models: Sequence[nn.Module],
    num_steps: int,
    computed: Container[int],
    always: Container[int] = (),
) -> Iterator[None]:
    """Run the models, which share the steps, with a residual for each block and stream inside."""
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

    def kept(block: KeptBlock) -> Any:
        return lambda *args, **kwargs: block.run(calls, args, kwargs)

    try:
        for model in models:
            install(model, counted(model))
            for blocks in _adapter(model).lists:
                for block in blocks.modules(model).values():
                    install(block, kept(KeptBlock(block, blocks.streams, blocks.passed)))
        yield
    finally:
        for module in changed:
            del vars(module)["forward"]
