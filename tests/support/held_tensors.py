"""Hold every tensor that enters or leaves a module, and find those that were written to later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten


class HeldTensors:
    """The tensors that entered and left modules, with a copy of each from that moment."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._held: list[tuple[str, Tensor, Tensor]] = []

    def hold(self, name: str, values: Any) -> None:
        """Hold the tensors in `values`, under the name and the number of this call."""
        self._calls[name] += 1
        for index, value in enumerate(tree_flatten(values)[0]):
            if isinstance(value, Tensor):
                place = f"{name}[{index}], call {self._calls[name]}"
                self._held.append((place, value, value.clone()))

    def written(self) -> set[str]:
        """Return the names of the tensors that have other values than when they were held."""
        return {
            name
            for name, tensor, copy in self._held
            if not torch.allclose(tensor, copy, rtol=0, atol=0, equal_nan=True)
        }


@contextmanager
def held_tensors(models: Iterable[nn.Module], whole: bool = False) -> Iterator[HeldTensors]:
    """Hold the tensors that enter and leave each module of the models inside the context.

    Args:
        models: the models.
        whole: True to hold only what enters and leaves a model as a whole.
    """
    held = HeldTensors()
    handles = []
    for model in models:
        for name, module in [("", model)] if whole else model.named_modules():
            before, after = _hooks(held, f"{type(model).__name__}.{name}")
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
    try:
        yield held
    finally:
        for handle in handles:
            handle.remove()


def _hooks(held: HeldTensors, name: str) -> tuple[Any, Any]:
    def before(_module: nn.Module, args: Any, kwargs: Any) -> None:
        held.hold(f"input of {name}", (args, kwargs))

    def after(_module: nn.Module, _args: Any, output: Any) -> None:
        held.hold(f"output of {name}", output)

    return before, after
