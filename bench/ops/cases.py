"""The cases of every op that `run.py` times, and the code that each op is compared with.

The bytes of a case are those of the tensors that it reads and writes, each counted once. One pass
over memory needs at least these. The roof of a case is a loop in C++ that moves these bytes and no
more (`roof.cpp`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from adacache_kernels import ops
from adacache_kernels.ops import reference
from adacache_kernels.ops.decide_settings import DecideStep
from bench.ops import baselines, roof

# The channels and frames of Latte, with guidance in one batch.
BATCH, FRAMES, CHANNELS = 2, 16, 1152

# Our ops round once, in the dtype of the compared tensor. Eager bfloat16 rounds after every
# operation, two or three times here. `norm` adds millions of float32 numbers with few accumulators:
# at 256 MiB, a ratio of two norms was up to 7 % off. With eight bits our ops are exact. Eager code
# divides in another way and may round to a neighbour.
OURS = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.int8: 0.0, torch.float8_e4m3fn: 0.0}
OTHERS = {torch.float32: 1e-3, torch.bfloat16: 2**-6}
AUTHORS = 0.1
NEIGHBOURS = {torch.int8: (0.0, 1.0), torch.float8_e4m3fn: (2**-3, 2**-9)}  # relative, absolute

Tensors = dict[str, Tensor]
Shape = tuple[int, int, int, int]
Provider = Callable[..., "Tensor | None"]


@dataclass(frozen=True)
class Case:
    """A use of an op. Every provider is a function of the case's tensors, by name.

    Args:
        op: its name in `adacache_kernels.ops`.
        name: the use.
        reads: the tensors that must be read.
        writes: the tensor that is written, in place if it is among `reads`.
        make: a function from shape and dtype to the tensors.
        ours: the op.
        reference: the code whose result every provider must reproduce.
        eager: natural PyTorch code.
        compiled: True if `eager` is timed through `torch.compile` as well.
        others: more providers.
        roofs: loops that move the same bytes; the fastest counts.
        writes_too: another tensor that is written.
        latency: True if few bytes are moved, so that only the time of a call matters.
    """

    op: str
    name: str
    reads: tuple[str, ...]
    writes: str
    make: Callable[[Shape, torch.dtype], Tensors]
    ours: Provider
    reference: Provider
    eager: Provider
    compiled: bool = True
    others: dict[str, Provider] = field(default_factory=dict)
    roofs: dict[str, Provider] = field(default_factory=dict)
    writes_too: tuple[str, ...] = ()
    latency: bool = False

    @property
    def key(self) -> str:
        return f"{self.op}: {self.name}"

    def providers(self) -> dict[str, Provider]:
        """Return the providers to time; "compile" is not compiled yet."""
        compiled = {"compile": self.eager} if self.compiled else {}
        return {"ours": self.ours, "eager": self.eager} | compiled | self.others | self.roofs

    def bytes(self, tensors: Tensors) -> int:
        """Return the bytes that one call has to move; 0 if only latency matters."""
        if self.latency:
            return 0
        return sum(tensors[name].nbytes for name in self.moved())

    def moved(self) -> tuple[str, ...]:
        return (*self.reads, self.writes, *self.writes_too)

    def check(self, runs: dict[str, Provider], tensors: Tensors) -> None:
        """Raise AssertionError unless all `runs` agree with the reference."""
        truth = _clone(tensors)
        expected = self.reference(**truth)
        loose = OTHERS[truth.get("x_out", truth[self.writes]).dtype]
        for name, run in runs.items():
            if name in self.roofs:
                continue
            tried = _clone(tensors)
            found = run(**tried)
            tolerance = None if name == "ours" else loose
            if name == "authors":
                self._compare(name, found, ratios(expected), AUTHORS)
                continue
            for written in (self.writes, *self.writes_too):
                self._compare(name, tried[written], truth[written], tolerance)
            if expected is not None:
                self._compare(name, totals(found), totals(expected), tolerance)

    def _compare(self, name: str, found: Tensor, expected: Tensor, tolerance: float | None) -> None:
        relative = absolute = OURS[found.dtype] if tolerance is None else tolerance
        if found.dtype in NEIGHBOURS:
            if tolerance is not None:
                relative, absolute = NEIGHBOURS[found.dtype]
            found, expected = found.float(), expected.float()
        torch.testing.assert_close(
            found,
            expected,
            rtol=relative,
            atol=absolute,
            equal_nan=True,
            check_dtype=False,
            msg=lambda text: f"{self.key}, {name}: {text}",
        )


def cases() -> list[Case]:
    """Return all cases, in the order of the report."""
    return [
        _distance("residual given", ("slot", "x_out"), baselines.distance,
                  authors=baselines.authors_distance),
        _distance("x_out - x_in", ("slot", "x_out", "x_in"), baselines.distance_of_difference,
                  authors=baselines.authors_distance_of_difference),
        _distance("residual given, motion", ("slot", "x_out"), baselines.distance_and_motion,
                  authors=baselines.authors_distance_and_motion, strides=(1,)),
        _distance("forecast of two", ("slot", "x_out", "x_in", "newer"),
                  baselines.distance_to_forecast, coefficients=(2.0, -1.0)),
        _distance_stored("into int8", torch.int8, baselines.distance_into_int8),
        _distance_stored("into float8", torch.float8_e4m3fn, baselines.distance_into_float8),
        _residual(),
        _add("one residual", ("newer",), baselines.add, baselines.add_in_place),
        _add("two residuals", ("newer", "older"), baselines.add_two, baselines.add_two_in_place),
        _add("one residual, out of place", ("newer",), baselines.add_out_of_place, writes="out"),
        _add_quantised(),
        _add("flag 0", ("newer",), baselines.add, baselines.add_in_place, flag=0),
        _decide(),
    ]  # fmt: skip


def shape_of(size_mb: float, dtype: torch.dtype) -> Shape:
    """Return a shape `[B, F, S, C]` of about `size_mb` MiB a tensor."""
    tokens = size_mb * 2**20 / (BATCH * FRAMES * CHANNELS * dtype.itemsize)
    return BATCH, FRAMES, max(1, round(tokens)), CHANNELS


def totals(sums: Tensor) -> Tensor:
    """Return the sums of each sample; the op returns partial sums `[B, P, columns]`."""
    return sums.sum(dim=1) if sums.dim() == 3 else sums


def ratios(sums: Tensor) -> Tensor:
    """Return the distance of the whole batch and, if its sums exist, the motion score."""
    columns = totals(sums).sum(dim=0)
    found = [columns[0] / columns[1]]
    if len(columns) > 3:
        found.append(columns[3] / columns[4])
    return torch.stack(found)


def noise(shape: Sequence[int], dtype: torch.dtype, seed: int) -> Tensor:
    """Return normal values, repeated after a million: drawing all of them would take minutes."""
    numel = math.prod(shape)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(min(numel, 1_000_003), generator=generator).to(dtype)
    return drawn.repeat(-(-numel // len(drawn)))[:numel].view(*shape)


def _noises(names: Sequence[str], shape: Shape, dtype: torch.dtype) -> Tensors:
    return {name: noise(shape, dtype, seed) for seed, name in enumerate(names)}


def _clone(tensors: Tensors) -> Tensors:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _distance(
    name: str,
    reads: tuple[str, ...],
    eager: Provider,
    authors: Provider | None = None,
    strides: tuple[int, ...] = (),
    coefficients: tuple[float, ...] = (),
) -> Case:
    def make(shape: Shape, dtype: torch.dtype) -> Tensors:
        extra = {"coefficients": torch.tensor(coefficients)} if coefficients else {}
        return _noises(reads, shape, dtype) | extra

    def arguments(
        slot: Tensor,
        x_out: Tensor,
        x_in: Tensor | None = None,
        newer: Tensor | None = None,
        coefficients: Tensor | None = None,
    ) -> tuple[object, ...]:
        previous = () if newer is None else (newer,)
        return slot, x_out, x_in, previous, coefficients, strides

    def ours(**tensors: Tensor) -> Tensor:
        return ops.distance_update(*arguments(**tensors))

    def truth(**tensors: Tensor) -> Tensor:
        return reference.distance_update(*arguments(**tensors), metric="l1", slot_holds="previous")

    return Case(
        op="distance_update",
        name=name,
        reads=reads,
        writes="slot",
        make=make,
        ours=ours,
        reference=truth,
        eager=eager,
        others={"authors": authors} if authors else {},
        roofs={"roof": partial(_roof, reads)},
    )


def _distance_stored(name: str, stored: torch.dtype, eager: Provider) -> Case:
    """Return the case that stores x_out - x_in in a slot of eight bits and compares with it."""

    def make(shape: Shape, dtype: torch.dtype) -> Tensors:
        slot, scale = reference.quantize(noise(shape, torch.float32, 2), stored)
        return {"slot": slot, "scale": scale} | _noises(("x_out", "x_in"), shape, dtype)

    def ours(slot: Tensor, scale: Tensor, x_out: Tensor, x_in: Tensor) -> Tensor:
        return ops.distance_update(slot, x_out, x_in, scale=scale)

    def truth(slot: Tensor, scale: Tensor, x_out: Tensor, x_in: Tensor) -> Tensor:
        return reference.distance_update(slot, x_out, x_in, [], None, [], "l1", "previous", scale)

    return Case(
        op="distance_update",
        name=name,
        reads=("slot", "scale", "x_out", "x_in"),
        writes="slot",
        writes_too=("scale",),
        make=make,
        ours=ours,
        reference=truth,
        eager=eager,
        roofs={"roof": roof.store_bytes},
    )


def _residual() -> Case:
    names = ("slot", "x_out", "x_in")

    return Case(
        op="residual_update",
        name="plain",
        reads=names[1:],
        writes="slot",
        make=partial(_noises, names),
        ours=ops.residual_update,
        reference=reference.residual_update,
        eager=baselines.residual,
        others={"eager in place": baselines.residual_in_place},
        roofs={
            "roof": lambda slot, x_out, x_in: roof.write(slot, x_out, x_in),
            "roof streaming": lambda slot, x_out, x_in: roof.write(slot, x_out, x_in, True),
        },
    )


def _add(
    name: str,
    residuals: tuple[str, ...],
    eager: Provider,
    in_place: Provider | None = None,
    flag: int = 1,
    writes: str = "x",
) -> Case:
    reads = ("x", *residuals)

    def make(shape: Shape, dtype: torch.dtype) -> Tensors:
        names = tuple(dict.fromkeys((*reads, writes)))
        return _noises(names, shape, dtype) | _controls(len(residuals), flag)

    def arguments(tensors: Tensors) -> tuple:
        stored = [tensors[residual] for residual in residuals]
        return tensors["x"], stored, tensors["coefficients"], tensors["flag"]

    def ours(**tensors: Tensor) -> None:
        ops.conditional_add(*arguments(tensors), out=tensors[writes])

    def truth(**tensors: Tensor) -> None:
        x, stored, *controls = arguments(tensors)
        reference.conditional_add(tensors[writes], x, stored, [None] * len(stored), *controls)

    def moved(out: Tensor, x: Tensor, newer: Tensor, streaming: bool, **unused: Tensor) -> None:
        roof.write(out, x, newer, streaming)

    ways = {"roof": False, "roof streaming": True}
    apart = {way: partial(moved, streaming=streaming) for way, streaming in ways.items()}
    in_x = {"roof": partial(_roof, reads)} if flag else {}
    return Case(
        op="conditional_add",
        name=name,
        reads=reads,
        writes=writes,
        make=make,
        ours=ours,
        reference=truth,
        eager=eager,
        others={"eager in place": in_place} if in_place else {},
        roofs=in_x if writes == "x" else apart,
        latency=not flag,
    )


def _add_quantised() -> Case:
    def make(shape: Shape, dtype: torch.dtype) -> Tensors:
        residual = noise(shape, torch.float32, 1)
        scale = residual.abs().amax(dim=-1, keepdim=True) / 127
        quantised = (residual / scale).round().to(torch.int8)
        tensors = {"x": noise(shape, dtype, 0), "quantised": quantised, "scale": scale}
        return tensors | _controls(1, flag=1)

    def ours(
        x: Tensor, quantised: Tensor, scale: Tensor, coefficients: Tensor, flag: Tensor
    ) -> None:
        ops.conditional_add(x, [quantised], coefficients, flag, [scale], out=x)

    def truth(
        x: Tensor, quantised: Tensor, scale: Tensor, coefficients: Tensor, flag: Tensor
    ) -> None:
        reference.conditional_add(x, x, [quantised], [scale], coefficients, flag)

    def moved(x: Tensor, quantised: Tensor, scale: Tensor, **unused: Tensor) -> None:
        roof.add_bytes(x, quantised, scale)

    return Case(
        op="conditional_add",
        name="int8 residual",
        reads=("x", "quantised", "scale"),
        writes="x",
        make=make,
        ours=ours,
        reference=truth,
        eager=baselines.add_quantised,
        others={"eager in place": baselines.add_quantised_in_place},
        roofs={"roof": moved},
    )


def _decide() -> Case:
    settings = ops.DecideSettings(apply_moreg=True)

    def make(shape: Shape, dtype: torch.dtype) -> Tensors:
        # The sums are a few numbers, always float32, for any shape.
        state = ops.new_state("cpu")
        sums = torch.tensor([10.0, 100.0, 0.0, 40.0, 100.0]).expand(1, BATCH, 1, 5).contiguous()
        codebook = torch.tensor([[0.08, 0.16, 0.24, 0.32, 0.40], [6.0, 5.0, 4.0, 3.0, 2.0]])
        return {"state": state, "start": state.clone(), "sums": sums, "codebook": codebook}

    # Both start from the same state, so both copy the same ten numbers.
    def ours(state: Tensor, start: Tensor, sums: Tensor, codebook: Tensor) -> None:
        state.copy_(start)
        ops.decide(state, sums, codebook, settings, 5, in_window=True)

    def truth(state: Tensor, start: Tensor, sums: Tensor, codebook: Tensor) -> None:
        state.copy_(start)
        values = DecideStep(5, has_previous=True, in_window=True)
        reference.decide(state, sums, codebook, settings, values)

    return Case(
        op="decide",
        name="one location, motion",
        reads=("sums", "codebook", "start"),
        writes="state",
        make=make,
        ours=ours,
        reference=truth,
        eager=truth,
        compiled=False,
        latency=True,
    )


def _controls(count: int, flag: int) -> Tensors:
    """Return coefficients that keep x finite after any number of additions, and the flag."""
    coefficients = torch.tensor([0.5, -0.25])[:count]
    return {"coefficients": coefficients, "flag": torch.tensor([flag], dtype=torch.int32)}


def _roof(names: tuple[str, ...], /, **tensors: Tensor) -> None:
    """Read all tensors of `names`, and write the first in place."""
    roof.update(*(tensors[name] for name in names))
