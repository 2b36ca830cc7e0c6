"""Hooks that split the arguments of a block, as diffusers and vLLM-Omni set them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from adacache_kernels.models.other_libraries.split_hooks import split_arguments


class SequenceParallelSplitHook:
    """The hook of vLLM-Omni: here it keeps a part of one dimension of `hidden_states`."""

    def __init__(self, dimension: int, start: int) -> None:
        self._dimension, self._start = dimension, start
        self.metadata = {"hidden_states": SimpleNamespace(expected_dims=3, split_output=False)}

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        kept = kwargs["hidden_states"].narrow(self._dimension, self._start, 2)
        return args, {**kwargs, "hidden_states": kept}


class Block(nn.Module):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states


def hooked(**hooks: Any) -> Block:
    block = Block()
    block._hook_registry = SimpleNamespace(_hooks=hooks)  # type: ignore[assignment]
    return block


def split(block: nn.Module, x: Tensor) -> Any:
    return split_arguments(block, (), {"hidden_states": x})[1]["hidden_states"]


def test_vllm_omni_splits_on_the_first_block() -> None:
    x = torch.arange(24).view(1, 4, 6)
    assert torch.equal(split(hooked(sp=SequenceParallelSplitHook(1, 2)), x), x[:, 2:])


def test_its_hooks_run_in_the_order_of_their_names() -> None:
    class Negated(SequenceParallelSplitHook):
        pass

    Negated.__name__ = "SequenceParallelSplitHook"
    first, second = SequenceParallelSplitHook(1, 1), SequenceParallelSplitHook(1, 0)
    x = torch.arange(24).view(1, 4, 6)
    # Of tokens 1 and 2, the first two.
    assert torch.equal(split(hooked(b=second, a=first), x), x[:, 1:3])
    swapped = hooked(b=first, a=SequenceParallelSplitHook(1, 0))
    try:
        split(swapped, x)
    except RuntimeError as error:
        assert "start (1) + length (2) exceeds dimension size (2)" in str(error)
    else:
        raise AssertionError("the hooks ran in another order")


def test_other_hooks_of_vllm_omni_are_left_to_the_block() -> None:
    x = torch.arange(24).view(1, 4, 6)
    assert split(hooked(cache=SimpleNamespace(metadata={})), x) is x
