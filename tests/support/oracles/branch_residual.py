"""A plain oracle for any model: one residual for each block, stream, branch and sweep."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from tests.support.tiny_models.other_repositories.double import Streams


class BranchResiduals:
    """The blocks of a model, which add their stored residuals in calls that are not computed.

    A residual is that of the branch's last computed call. A block that runs several times in one
    call has a residual for each time. A stream may be the field `x` of an object.

    Args:
        model: the model; its blocks get another `forward` until `remove` is called.
        streams: by dotted name of a block list, its streams.
    """

    def __init__(self, model: nn.Module, streams: dict[str, Streams]) -> None:
        self._stored: dict[tuple[Any, ...], tuple[dict[str, Tensor], Any]] = {}
        self._branch, self._computed = "", True
        self._times: dict[nn.Module, int] = {}
        self._blocks: list[nn.Module] = []
        for path, of_list in streams.items():
            found = model.get_submodule(path)
            blocks = found.values() if isinstance(found, nn.ModuleDict) else found.children()
            for block in blocks:
                self._replace(block, of_list)

    @contextmanager
    def call(self, branch: str, computed: bool) -> Iterator[None]:
        """Let the blocks run or add their residuals inside the context."""
        self._branch, self._computed, self._times = branch, computed, {}
        yield

    def remove(self) -> None:
        """Give the blocks their own forward."""
        for block in self._blocks:
            del block.forward

    def _replace(self, block: nn.Module, streams: Streams) -> None:
        original, signature = block.forward, inspect.signature(block.forward)

        def forward(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            values = {**bound.arguments, **bound.arguments.get("others", {})}
            self._times[block] = self._times.get(block, 0) + 1
            key = (self._branch, block, self._times[block])
            before = {name: _tensor(values[name]).clone() for name in streams}
            if not self._computed:
                added, output = self._stored[key]
                return _output(streams, values, {n: before[n] + added[n] for n in streams}, output)
            output = original(*args, **kwargs)
            after = {n: _tensor(output if i is None else output[i]) for n, i in streams.items()}
            self._stored[key] = ({n: after[n] - before[n] for n in streams}, output)
            return output

        block.forward = forward
        self._blocks.append(block)


def _tensor(value: Any) -> Tensor:
    tensor: Tensor = value if isinstance(value, Tensor) else value.x
    return tensor


def _output(streams: Streams, given: dict[str, Any], new: dict[str, Tensor], stored: Any) -> Any:
    """Return the output with the new streams; other elements are those of the computed call."""
    elements = list(stored) if isinstance(stored, tuple) else [stored]
    for name, index in streams.items():
        is_tensor = isinstance(given[name], Tensor)
        elements[index or 0] = (
            new[name] if is_tensor else dataclasses.replace(given[name], x=new[name])
        )
    return tuple(elements) if isinstance(stored, tuple) else elements[0]
