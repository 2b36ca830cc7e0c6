"""Compute the gated residuals of blocks whose gates come from `scale_shift_table + temb`.

The six modulations in the table are shift, scale and gate of the attention, then of the MLP. The
operations and dtypes are those of the blocks' own forwards.
"""

from __future__ import annotations

from torch import Tensor

from .adapter import BlockRun, Residual

GATE_ATTENTION, GATE_MLP = 2, 5
TABLE = "scale_shift_table"


def gated_attention(lists: tuple[str, ...], temb: str) -> Residual:
    """Return the residual `gate * attn1(...)`, `[B, S, C]`.

    Args:
        lists: the block lists that have a metric block.
        temb: the block's parameter that takes the timestep's embedding, `[B, 6*C]`.
    """

    def value(run: BlockRun) -> Tensor:
        attention: Tensor = run.tap("attn1")
        return _gate(run, temb, GATE_ATTENTION) * attention

    return Residual(lists, ("attn1",), value, arguments=(temb,), parameters=(TABLE,))


def gated_cross_mlp(lists: tuple[str, ...], temb: str) -> Residual:
    """Return the residual `attn2(...) + gate * ff(...)`, `[B, S, C]`.

    A block without `attn2`, such as Latte's temporal ones, has the second term alone.

    Args:
        lists: the block lists that have a metric block.
        temb: the block's parameter that takes the timestep's embedding, `[B, 6*C]`.
    """

    def value(run: BlockRun) -> Tensor:
        mlp: Tensor = _gate(run, temb, GATE_MLP) * run.tap("ff")
        cross = run.tap_outputs.get("attn2")
        return mlp if cross is None else cross + mlp

    return Residual(
        lists, ("attn2", "ff"), value, ("attn2",), arguments=(temb,), parameters=(TABLE,)
    )


def _gate(run: BlockRun, temb: str, index: int) -> Tensor:
    """Return the gate `(scale_shift_table + temb)[index]`, `[B, 1, C]`."""
    table = run.parameter(TABLE)
    modulation: Tensor = table[None] + run.arguments[temb].reshape(run.x_in.shape[0], 6, -1)
    return modulation.chunk(6, dim=1)[index]
