"""Residuals of blocks whose gates come from `scale_shift_table + temb`, as their forwards do it."""

from __future__ import annotations

from torch import Tensor

from .adapter import BlockRun

GATE_ATTENTION, GATE_MLP = 2, 5


def adaln_single_gate(run: BlockRun, temb: str, index: int) -> Tensor:
    """gate = (scale_shift_table + temb)[index] of six; temb [B, 6C] as PixArt's adaLN-single."""
    table = run.parameter("scale_shift_table")
    modulation: Tensor = table[None] + run.arguments[temb].reshape(run.x_in.shape[0], 6, -1)
    return modulation.chunk(6, dim=1)[index]


def adaln_single_attention(run: BlockRun, temb: str) -> Tensor:
    """gate_msa * attn1(...)"""
    attention: Tensor = run.tap("attn1")
    return adaln_single_gate(run, temb, GATE_ATTENTION) * attention


def adaln_single_cross_mlp(run: BlockRun, temb: str) -> Tensor:
    """attn2(...) + gate_mlp * ff(...); without attn2 (Latte's temporal blocks) the second alone."""
    mlp: Tensor = adaln_single_gate(run, temb, GATE_MLP) * run.tap("ff")
    cross = run.tap_outputs.get("attn2")
    return mlp if cross is None else cross + mlp
