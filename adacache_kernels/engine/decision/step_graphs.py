"""Steps that are captured once, both ways: the device chooses by itself which way they go.

The host launches the same graph in every step and learns what the device chose when somebody asks
for the summary. Each branch of guidance has a graph of its own; one decision holds for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

from ... import ops
from ...schedule import Decision
from .distance_meter import DistanceMeter, decision_of
from .graph_capture import Capture, Choice, make_capture

EAGER_STEPS = 2
"""Steps that are computed without a graph: nothing is stored before the first, and the rate after
it is 1. Kernels are compiled and memory is planned on the way."""
MOST_GRAPHS = 4
"""Of a branch and shape: more mean that an argument which is no tensor changes in each step."""

Way = Callable[[tuple[Any, ...], Mapping[str, Any]], Any]
"""Runs a forward on arguments."""


@dataclass(frozen=True)
class DeviceLog:
    """What the device has chosen in the steps of a generation.

    Args:
        computed: steps that ran the blocks.
        reused: steps that added residuals.
        decisions: by computed step.
    """

    computed: list[int]
    reused: list[int]
    decisions: dict[int, Decision]


class StepGraphs:
    """The graphs of a patched model, and the log of a generation.

    Args:
        model: the transformer; other weights need other graphs.
        meter: decides, on the device.
        capture: makes graphs; None: as the device needs them.
    """

    def __init__(
        self, model: nn.Module, meter: DistanceMeter, capture: Capture | None = None
    ) -> None:
        self._model = model
        self._meter = meter
        self._capture = capture
        self._graphs: dict[object, StepGraph] = {}
        self._weights: tuple[int, ...] = ()
        self._log: _LogOnDevice | None = None
        self.begin_generation(0, (1, 0), (1, 0))

    def begin_generation(
        self, num_steps: int, reusable: tuple[int, int], window: tuple[int, int]
    ) -> None:
        """Nothing has run yet.

        Args:
            num_steps: of the generation.
            reusable: first and last step that may be reused.
            window: first and last step in which motion is measured.
        """
        self._num_steps, self._reusable, self._window = num_steps, reusable, window
        self._has_begun = False
        self._eager_left = EAGER_STEPS
        weights = tuple(p.data_ptr() for p in (*self._model.parameters(), *self._model.buffers()))
        if weights != self._weights:
            self._graphs.clear()
        self._weights = weights

    def clear(self) -> None:
        """Give all memory back."""
        self._graphs.clear()
        self._log = None

    def forget(self) -> None:
        """What is stored no longer holds: begin as with the first step of a generation."""
        self._eager_left = EAGER_STEPS
        if self._log is not None and self._has_begun:
            self._meter.on_device(self._log.device)
            self._meter.reset_state()
            self._eager_left += 1  # The step that begins now has not been counted.

    def begin_step(self, step: int, device: torch.device) -> None:
        """Before the first forward of a step: the device makes up its mind."""
        if self._capture is None:
            self._capture = make_capture(device)
        state, log = self._meter.on_device(device), self._log
        if log is None or log.device != device:
            self._log = log = _LogOnDevice(device)
            self._graphs.clear()
            self._meter.clock = log.clock
        if not self._has_begun:
            log.begin(self._num_steps)
            self._has_begun = True
        else:
            self._eager_left = max(0, self._eager_left - 1)
        log.note_state(step - 1, state)
        ops.begin_step(log.clock, log.flags, state, self._reusable, self._window)
        log.note_flags(step)

    @property
    def is_eager(self) -> bool:
        """Whether this step is computed without a graph."""
        return self._eager_left > 0

    def run(
        self,
        key: object,
        holds: object,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        compute: Way,
        reuse: Way,
    ) -> Any:
        """A forward by the graph of that key, which is captured where there is none.

        Args:
            key: branch and shapes.
            holds: whose addresses the graph has in it: another object needs another graph.
            args: of the forward.
            kwargs: of the forward.
            compute: runs the blocks and stores residuals.
            reuse: adds them instead.
        """
        assert self._log is not None and self._capture is not None
        values, _ = tree_flatten((args, dict(kwargs)))
        others = tuple(repr(value) for value in values if not isinstance(value, Tensor))
        whole = (key, others, self._meter.codebook)
        graph = self._graphs.get(whole)
        if graph is None or graph.holds is not holds:
            self._check_number(key, others)
            ways = (compute, reuse)
            graph = StepGraph(self._capture, self._log.flags, holds, args, kwargs, ways)
            self._graphs[whole] = graph
        return graph(args, kwargs)

    def told(self) -> DeviceLog:
        """What has happened so far in this generation; the host waits for the device."""
        if self._log is None or not self._has_begun:
            return DeviceLog([], [], {})
        return self._log.told(self._meter.on_device(self._log.device))

    def _check_number(self, key: object, others: tuple[str, ...]) -> None:
        same = [known for known in self._graphs if isinstance(known, tuple) and known[0] == key]
        if len(same) >= MOST_GRAPHS:
            raise RuntimeError(
                f'decision="graph": the model has been captured {len(same)} times for the same '
                "shapes, because an argument that is no tensor changes from call to call (now "
                f"they are {', '.join(others)}); give it as a tensor on the model's device, or use "
                'decision="async"'
            )


class StepGraph:
    """One forward, both ways, on inputs and outputs of its own.

    Args:
        capture: makes graphs.
        flags: int32 [2]: compute, reuse.
        holds: whose addresses it has in it.
        args: of the forward, as they will be in shape.
        kwargs: likewise.
        ways: computes, reuses.
    """

    def __init__(
        self,
        capture: Capture,
        flags: Tensor,
        holds: object,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        ways: tuple[Way, Way],
    ) -> None:
        self.holds = holds
        with torch.inference_mode(False), torch.no_grad():
            self._inputs = tree_map_only(Tensor, torch.clone, (args, dict(kwargs)))
        compute, reuse = ways
        # Compiles what a reused step launches, and shows what comes out. It changes nothing stored.
        outputs = reuse(*self._inputs)
        with torch.inference_mode(False), torch.no_grad():
            self._outputs = tree_map_only(Tensor, torch.empty_like, outputs)
        taken = capture.record(lambda: self._fill(compute))
        otherwise = capture.record(lambda: self._fill(reuse))
        self._choice: Choice = capture.choose(flags[:1], taken, otherwise)

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The outputs for these inputs."""
        _copy(self._inputs, (args, dict(kwargs)))
        self._choice.launch()
        # The next call writes over the outputs, while a scheduler may still hold these.
        return tree_map_only(Tensor, torch.clone, self._outputs)

    def _fill(self, way: Way) -> None:
        args, kwargs = self._inputs
        _copy(self._outputs, way(args, kwargs))


class _LogOnDevice:
    """What the device chose in each step of a generation, on the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Graphs have these addresses in them, so that they stay for as long as the graphs do.
        with torch.inference_mode(False):
            self.clock = ops.new_step_state(device)
            self.flags = torch.zeros(2, dtype=torch.int32, device=device)

    def begin(self, num_steps: int) -> None:
        self.clock.zero_()
        with torch.inference_mode(False):
            self._computes = torch.zeros(num_steps + 1, dtype=torch.int32, device=self.device)
            self._states = torch.zeros(num_steps + 1, len(ops.State), device=self.device)
        self._last = 0

    def note_state(self, step: int, state: Tensor) -> None:
        self._states[step].copy_(state)

    def note_flags(self, step: int) -> None:
        self._last = step
        self._computes[step].copy_(self.flags[0])

    def told(self, state: Tensor) -> DeviceLog:
        self.note_state(self._last, state)
        computes, states = self._computes.tolist(), self._states.tolist()
        steps = range(1, self._last + 1)
        decisions = {
            step: decision_of(states[step])
            for step in steps
            if computes[step] and states[step][ops.State.STEP] == step
        }
        return DeviceLog(
            [step for step in steps if computes[step]],
            [step for step in steps if not computes[step]],
            decisions,
        )


def _copy(into: Any, values: Any) -> None:
    kept, _ = tree_flatten(into)
    given, _ = tree_flatten(values)
    for target, value in zip(kept, given, strict=True):
        if isinstance(target, Tensor):
            target.copy_(value, non_blocking=True)
