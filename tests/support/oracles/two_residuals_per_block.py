"""A plain oracle: AdaCache as its authors have it, with two residuals per block and stream.

Every block stores its gated attention residual and the rest of what it adds. In a reused step it
adds the first and then the second. It follows the blocks' own formulas, without the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Residuals = list[tuple[Tensor, Tensor]]


def latte_attention(block: nn.Module, bound: dict[str, Any], taps: dict[str, Any]) -> list[Tensor]:
    table = block.scale_shift_table + bound["timestep"].view(
        -1, 6, block.scale_shift_table.shape[1]
    )
    return [table[:, 2:3] * taps["attn1"]]


def allegro_attention(
    block: nn.Module, bound: dict[str, Any], taps: dict[str, Any]
) -> list[Tensor]:
    table = block.scale_shift_table + bound["temb"].view(-1, 6, block.scale_shift_table.shape[1])
    return [table[:, 2:3] * taps["attn1"]]


def wan_attention(block: nn.Module, bound: dict[str, Any], taps: dict[str, Any]) -> list[Tensor]:
    return [taps["attn1"] * (block.scale_shift_table[:, 2:3] + bound["temb"][:, 2:3])]


def cogvideox_attention(
    block: nn.Module, bound: dict[str, Any], taps: dict[str, Any]
) -> list[Tensor]:
    modulation = block.norm1.linear(nn.functional.silu(bound["temb"]))
    channels = modulation.shape[-1] // 6
    video_gate = modulation[:, None, 2 * channels : 3 * channels]
    text_gate = modulation[:, None, 5 * channels :]
    video, text = taps["attn1"]
    return [video_gate * video, text_gate * text]


ATTENTION: dict[str, Callable[..., list[Tensor]]] = {
    "latte": latte_attention,
    "allegro": allegro_attention,
    "wan": wan_attention,
    "cogvideox": cogvideox_attention,
    "cogvideox15": cogvideox_attention,
}
NAMES = {
    "latte": (
        "hidden_states",
        "attention_mask",
        "encoder_hidden_states",
        "encoder_attention_mask",
        "timestep",
        "cross_attention_kwargs",
        "class_labels",
    ),
    "wan": ("hidden_states", "encoder_hidden_states", "temb", "rotary_emb"),
}


class TwoResiduals:
    """A block's forward that stores two residuals while `computing()`, and else adds them."""

    def __init__(self, name: str, block: nn.Module, computing: Callable[[], bool]) -> None:
        self.name, self.block, self.computing = name, block, computing
        self.original = block.forward
        self.stored: Residuals = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = dict(zip(NAMES.get(self.name, ()), args, strict=False)) | kwargs
        streams = [bound["hidden_states"]]
        if self.name.startswith("cogvideox"):
            streams.append(bound["encoder_hidden_states"])
        if not self.computing():
            outputs = [
                x + attention + rest
                for x, (attention, rest) in zip(streams, self.stored, strict=True)
            ]
            return outputs[0] if len(outputs) == 1 else tuple(outputs)
        output, taps = self._run(args, kwargs)
        outputs = output if isinstance(output, tuple) else (output,)
        attentions = ATTENTION[self.name](self.block, bound, taps)
        self.stored = [
            (attention, y - x - attention)
            for x, y, attention in zip(streams, outputs, attentions, strict=True)
        ]
        return output

    def _run(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        taps: dict[str, Any] = {}
        handle = self.block.attn1.register_forward_hook(
            lambda _module, _args, output: taps.__setitem__("attn1", output)
        )
        try:
            return self.original(*args, **kwargs), taps
        finally:
            handle.remove()


@contextmanager
def _installed(wrappers: Iterable[Any]) -> Iterator[None]:
    """Let each wrapper be the forward of its block inside the context."""
    for wrapper in wrappers:
        wrapper.block.forward = wrapper
    try:
        yield
    finally:
        for wrapper in wrappers:
            del wrapper.block.forward


@contextmanager
def two_residuals(
    name: str, model: nn.Module, lists: Sequence[str], computing: Callable[[], bool]
) -> Iterator[dict[tuple[str, int], TwoResiduals]]:
    """Let `model` have two residuals per block inside; yields the wrappers by (list, index)."""
    wrapped = {
        (attribute, index): TwoResiduals(name, block, computing)
        for attribute in lists
        for index, block in enumerate(getattr(model, attribute))
    }
    with _installed(wrapped.values()):
        yield wrapped


def relative(a: Tensor, b: Tensor) -> float:
    """Return ||a - b|| / ||b|| in float64."""
    difference = torch.linalg.vector_norm(a.double() - b.double())
    return float(difference / torch.linalg.vector_norm(b.double()))


class ForecastBlock:
    """A block's forward that stores all its residuals, and forecasts in reused steps."""

    def __init__(
        self, name: str, block: nn.Module, order: int, now: Callable[[], int], computed: set[int]
    ) -> None:
        self.name, self.block, self.order = name, block, order
        self.now, self.computed = now, computed
        self.original = block.forward
        self.residuals: dict[int, list[Tensor]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = dict(zip(NAMES.get(self.name, ()), args, strict=False)) | kwargs
        streams = [bound["hidden_states"]]
        if self.name.startswith("cogvideox"):
            streams.append(bound["encoder_hidden_states"])
        if self.now() not in self.computed:
            known = sorted(self.residuals)[-self.order - 1 :]
            outputs = [
                x + self.through(known, self.now(), stream) for stream, x in enumerate(streams)
            ]
            return outputs[0] if len(outputs) == 1 else tuple(outputs)
        output = self.original(*args, **kwargs)
        outputs = list(output) if isinstance(output, tuple) else [output]
        self.residuals[self.now()] = [y - x for x, y in zip(streams, outputs, strict=True)]
        return output

    def through(self, known: Sequence[int], step: int, stream: int) -> Tensor:
        """Return the value at `step` of the polynomial through the residuals at steps `known`."""
        powers = torch.tensor([[float(k) ** p for p in range(len(known))] for k in known]).double()
        values = torch.stack([self.residuals[k][stream].double() for k in known])
        factors = torch.linalg.solve(powers, values.reshape(len(known), -1))
        at = torch.tensor([float(step) ** p for p in range(len(known))]).double()
        return (at @ factors).reshape(values.shape[1:]).float()

    def missed(self, step: int, stream: int = 0) -> Tensor:
        """Return the sum of the errors of the forecasts before the computed step `step`."""
        known = sorted(k for k in self.residuals if k < step)[-self.order - 1 :]
        through = [*known, step]
        return sum(
            (
                self.through(through, j, stream) - self.through(known, j, stream)
                for j in range(known[-1] + 1, step)
            ),
            torch.zeros_like(self.residuals[step][stream]),
        )


@contextmanager
def forecast_blocks(
    name: str,
    model: nn.Module,
    lists: Sequence[str],
    order: int,
    now: Callable[[], int],
    computed: set[int],
) -> Iterator[dict[tuple[str, int], ForecastBlock]]:
    """Let `model` forecast each block's residual inside; yields the wrappers by (list, index)."""
    wrapped = {
        (attribute, index): ForecastBlock(name, block, order, now, computed)
        for attribute in lists
        for index, block in enumerate(getattr(model, attribute))
    }
    with _installed(wrapped.values()):
        yield wrapped
