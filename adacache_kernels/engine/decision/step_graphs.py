"""Run steps as CUDA graphs in which the device chooses to compute or to reuse.

A forward is captured once in both ways. The host launches the same graph in every step, and learns
the choices of the device when the summary is wanted. Each guidance branch has its own graph, and
one decision holds for all branches of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

from ... import ops
from .decider import Decider
from .device_log import DeviceLog, LogOnDevice
from .graph_capture import Capture, Choice, make_capture

EAGER_STEPS = 2
"""Steps that are computed without a graph. Nothing is stored before the first step, and the rate
after it is 1. These steps also compile the kernels and plan the memory."""
MOST_GRAPHS = 4
"""Graphs of one branch and shape. If there would be more, an argument that is no tensor changes in
every step."""

Forward = Callable[[tuple[Any, ...], Mapping[str, Any]], Any]
"""Runs the model in one way on positional and keyword arguments."""


class StepGraphs:
    """The graphs of a patched model, and the log of the present generation.

    Args:
        model: the transformer; its graphs are dropped if its weights are replaced.
        decider: decides on the device.
        capture: makes graphs; None: `make_capture` makes it for the device of the first step.
    """

    def __init__(self, model: nn.Module, decider: Decider, capture: Capture | None = None) -> None:
        self._model = model
        self._decider = decider
        self._capture = capture
        self._graphs: dict[_GraphKey, StepGraph] = {}
        self._weights: tuple[int, ...] = ()
        self._switch: _Switch | None = None
        self._log: LogOnDevice | None = None
        self._num_steps = 0
        self._reusable = (1, 0)
        self._window = (1, 0)
        self._eager_left = EAGER_STEPS

    def begin_generation(
        self, num_steps: int, reusable: tuple[int, int], window: tuple[int, int]
    ) -> None:
        """Begin a generation.

        Args:
            num_steps: the number of steps.
            reusable: first and last step that may be reused.
            window: first and last step in which motion is measured.
        """
        self._num_steps, self._reusable, self._window = num_steps, reusable, window
        self._log = None
        self._eager_left = EAGER_STEPS
        weights = tuple(p.data_ptr() for p in (*self._model.parameters(), *self._model.buffers()))
        if weights != self._weights:
            self._graphs.clear()
        self._weights = weights

    def clear(self) -> None:
        """Give all memory back."""
        self._graphs.clear()
        self._switch = None
        self._log = None

    def lose(self) -> None:
        """Drop the graphs, whose slots are gone; the generation goes on without them."""
        self._graphs.clear()
        self._eager_left = EAGER_STEPS
        if self._log is not None:
            self._decider.state_on(self._log.device).reset()
            self._log.record_computed()

    def forget(self) -> None:
        """Drop what is stored: continue as at the first step of a generation."""
        self._eager_left = EAGER_STEPS
        if self._log is not None:
            self._decider.state_on(self._log.device).reset()
            self._eager_left += 1  # `begin_step` has not yet counted the step that begins now.

    def drop_graphs(self) -> None:
        """Drop the graphs, because they do not compute a step as it has to be computed now."""
        self._graphs.clear()

    def begin_step(self, step: int, device: torch.device) -> None:
        """Let the device choose, before the first forward of a step.

        Args:
            step: the step, counted from 1.
            device: the device of the forward's arguments.

        Raises:
            RuntimeError: the device is no NVIDIA GPU, or torch is too old.
        """
        if self._capture is None:
            self._capture = make_capture(device)
        state = self._decider.state_on(device).state
        switch = self._switch_on(device)
        if self._log is None:
            switch.step_state.zero_()
            self._log = LogOnDevice(self._num_steps, device)
        else:
            self._eager_left = max(0, self._eager_left - 1)
        self._log.record_state(step - 1, state)
        ops.begin_step(switch.step_state, switch.flags, state, self._reusable, self._window)
        self._log.record_choice(step, switch.flags)

    @property
    def is_eager(self) -> bool:
        """Return True if this step is computed without a graph."""
        return self._eager_left > 0

    def run(
        self,
        key: object,
        slots: object,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        compute: Forward,
        reuse: Forward,
    ) -> Any:
        """Run a forward by its graph; capture the graph if there is none.

        Args:
            key: branch and shapes, which select the graph.
            slots: the slots whose addresses the graph contains; other slots need a new graph.
            args: positional arguments of the forward.
            kwargs: keyword arguments of the forward.
            compute: runs the blocks and stores residuals.
            reuse: adds the stored residuals instead.

        Returns:
            The output of the forward, in new tensors.

        Raises:
            RuntimeError: an argument that is no tensor changes from call to call.
        """
        assert self._switch is not None and self._capture is not None, "begin_step comes first"
        values, _ = tree_flatten((args, dict(kwargs)))
        constants = tuple(repr(value) for value in values if not isinstance(value, Tensor))
        graph_key = (key, constants, self._decider.codebook)
        graph = self._graphs.get(graph_key)
        if graph is None or graph.slots is not slots:
            self._check_number(key, constants)
            graph = StepGraph(
                self._capture, self._switch.flags, slots, (args, kwargs), (compute, reuse)
            )
            self._graphs[graph_key] = graph
        return graph(args, kwargs)

    def log(self) -> DeviceLog:
        """Return the choices so far in this generation; the host waits for the device."""
        if self._log is None:
            return DeviceLog([], [], {})
        return self._log.read(self._decider.state_on(self._log.device).state)

    def _switch_on(self, device: torch.device) -> _Switch:
        if self._switch is None or self._switch.device != device:
            self._switch = _Switch(device)
            self._log = None
            self._graphs.clear()
            self._decider.step_state = self._switch.step_state
        return self._switch

    def _check_number(self, key: object, constants: tuple[str, ...]) -> None:
        same = [known for known, *_ in self._graphs if known == key]
        if len(same) >= MOST_GRAPHS:
            raise RuntimeError(
                f'decision="graph": the model has been captured {len(same)} times for the same '
                "shapes, because an argument that is no tensor changes from call to call (now "
                f"they are {', '.join(constants)}); give it as a tensor on the model's device, or "
                'use decision="async"'
            )


_GraphKey = tuple[object, tuple[str, ...], object]
"""Branch and shapes, arguments that are no tensors, codebook."""


class StepGraph:
    """One forward in both ways, on inputs and outputs of its own.

    Args:
        capture: makes graphs.
        flags: int32 `[2]`: compute, reuse.
        slots: the slots whose addresses the graph contains.
        inputs: positional and keyword arguments of the forward, with the shapes of all calls.
        ways: the forward that computes, and the one that reuses.
    """

    def __init__(
        self,
        capture: Capture,
        flags: Tensor,
        slots: object,
        inputs: tuple[tuple[Any, ...], Mapping[str, Any]],
        ways: tuple[Forward, Forward],
    ) -> None:
        self.slots = slots
        args, kwargs = inputs
        with torch.inference_mode(False), torch.no_grad():
            self._inputs = tree_map_only(Tensor, torch.clone, (args, dict(kwargs)))
        compute, reuse = ways
        # This compiles the kernels of a reused step and shows its outputs; it stores nothing.
        outputs = reuse(*self._inputs)
        with torch.inference_mode(False), torch.no_grad():
            self._outputs = tree_map_only(Tensor, torch.empty_like, outputs)
        taken = capture.record(lambda: self._fill(compute))
        otherwise = capture.record(lambda: self._fill(reuse))
        self._choice: Choice = capture.choose(flags[:1], taken, otherwise)

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the outputs for these arguments, in new tensors."""
        _copy(self._inputs, (args, dict(kwargs)))
        self._choice.launch()
        # The next call overwrites the graph's outputs, while a scheduler may still use these.
        return tree_map_only(Tensor, torch.clone, self._outputs)

    def _fill(self, way: Forward) -> None:
        args, kwargs = self._inputs
        _copy(self._outputs, way(args, kwargs))


class _Switch:
    """The tensors by which the device chooses; graphs contain their addresses."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        with torch.inference_mode(False):
            self.step_state = ops.new_step_state(device)
            self.flags = torch.zeros(2, dtype=torch.int32, device=device)


def _copy(targets: Any, values: Any) -> None:
    target_leaves, _ = tree_flatten(targets)
    value_leaves, _ = tree_flatten(values)
    for target, value in zip(target_leaves, value_leaves, strict=True):
        if isinstance(target, Tensor):
            target.copy_(value, non_blocking=True)
