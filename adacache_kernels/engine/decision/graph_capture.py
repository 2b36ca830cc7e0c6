"""Capture work as CUDA graphs, and combine two graphs so that the device chooses one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ... import _native


class Choice(Protocol):
    """Two graphs of which the device runs one."""

    def launch(self) -> None:
        """Run one graph on the current stream: the first if the flag is 1 then, else the second."""


class Capture(Protocol):
    """Makes graphs."""

    def record(self, run: Callable[[], None]) -> object:
        """Return the graph of the device work that `run` would launch; no work is done now."""

    def choose(self, flag: Tensor, taken: object, otherwise: object) -> Choice:
        """Combine two recorded graphs.

        Args:
            flag: int32 `[1]`: 1 runs `taken`, 0 runs `otherwise`.
            taken: a graph from `record`.
            otherwise: a graph from `record`.
        """


def make_capture(device: torch.device) -> Capture:
    """Return a capture for steps on `device`.

    Raises:
        RuntimeError: the device is no NVIDIA GPU, or torch is older than 2.8.
    """
    instead = 'use decision="async"'
    if device.type != "cuda" or torch.version.hip is not None:
        raise RuntimeError(
            f'decision="graph" needs an NVIDIA GPU, but the model runs on {device}; {instead}'
        )
    if not hasattr(torch.cuda.CUDAGraph, "raw_cuda_graph"):
        raise RuntimeError(
            'decision="graph" needs torch.cuda.CUDAGraph.raw_cuda_graph, which torch '
            f"{torch.__version__} does not have; install torch 2.8 or newer, or {instead}"
        )
    return TorchCapture(device)


class TorchCapture:
    """A capture by torch, with one memory pool for all graphs: only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, run: Callable[[], None]) -> Any:
        """Return the graph of the device work that `run` would launch; no work is done now."""
        graph = torch.cuda.CUDAGraph(keep_graph=True)
        # "thread_local": other threads may do what a capture forbids to this thread.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            run()
        return graph

    def choose(self, flag: Tensor, taken: Any, otherwise: Any) -> Choice:
        """Combine two recorded graphs; `flag` is int32 `[1]`."""
        return TorchChoice(self._device, flag, taken, otherwise)


class TorchChoice:
    """Two graphs of torch under one conditional node, see ``csrc/graph``."""

    def __init__(self, device: torch.device, flag: Tensor, taken: Any, otherwise: Any) -> None:
        self._device = device
        # The copies under the node use the memory of these.
        self._held = (flag, taken, otherwise)
        index = torch.cuda.current_device() if device.index is None else device.index
        graphs = (taken.raw_cuda_graph(), otherwise.raw_cuda_graph())
        self._native = _native.module().ConditionalGraph(index, 0, *graphs, flag.data_ptr())

    def launch(self) -> None:
        """Run one of the graphs on the current stream of the device."""
        self._native.launch(torch.cuda.current_stream(self._device).cuda_stream)
