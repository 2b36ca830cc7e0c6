"""Capturing work as CUDA graphs, and putting two of them under one choice of the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ... import _native


class Choice(Protocol):
    """Two graphs of which the device runs one."""

    def launch(self) -> None:
        """On the current stream: the first if the flag is 1 at that moment, else the other."""


class Capture(Protocol):
    """Makes graphs."""

    def record(self, run: Callable[[], None]) -> object:
        """The graph of what `run` gives the device to do; it is not done now."""

    def choose(self, flag: Tensor, taken: object, otherwise: object) -> Choice:
        """One graph of both, for `flag`, int32 [1]."""


def make_capture(device: torch.device) -> Capture:
    """For steps on `device`.

    Raises:
        RuntimeError: it is no NVIDIA GPU, or torch is too old.
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
    """Graphs that torch captures, in one pool of memory: only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, run: Callable[[], None]) -> Any:
        graph = torch.cuda.CUDAGraph(keep_graph=True)
        # Other threads may go on with what a capture forbids to this one.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            run()
        return graph

    def choose(self, flag: Tensor, taken: Any, otherwise: Any) -> Choice:
        return TorchChoice(self._device, flag, taken, otherwise)


class TorchChoice:
    """Two graphs of torch under one conditional node, see ``csrc/graph``."""

    def __init__(self, device: torch.device, flag: Tensor, taken: Any, otherwise: Any) -> None:
        self._device = device
        # Their memory is what the copies under the node work on.
        self._held = (flag, taken, otherwise)
        index = torch.cuda.current_device() if device.index is None else device.index
        graphs = (taken.raw_cuda_graph(), otherwise.raw_cuda_graph())
        self._native = _native.module().ConditionalGraph(index, 0, *graphs, flag.data_ptr())

    def launch(self) -> None:
        self._native.launch(torch.cuda.current_stream(self._device).cuda_stream)
