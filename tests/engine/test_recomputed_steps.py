"""`Summary.recomputed`: the reused steps in which blocks of a branch ran, and no other steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import adacache_kernels as ak
from tests.support.tiny_models.common_models import TINY, denoise

STEPS = 10
EVERY_THIRD = {float("inf"): 3}
TEXT = {"cond": 100, "uncond": 200}

Make = Callable[[nn.Module, int, str], None]
"""Makes the calls of one branch in one step."""


def call(model: nn.Module, step: int, name: str, batch: int = 1) -> None:
    tiny = TINY["wan"]
    tiny.call(model, tiny.noise(batch, seed=step), step, text_seed=TEXT[name])


def late(model: nn.Module, step: int, name: str) -> None:
    if name == "cond" or step >= 3:
        call(model, step, name)


def paused(model: nn.Module, step: int, name: str) -> None:
    if name == "cond" or step not in (4, 5):
        call(model, step, name)


def paused_twice(model: nn.Module, step: int, name: str) -> None:
    if name == "cond" or step not in (2, 5):
        call(model, step, name)


def resized(model: nn.Module, step: int, name: str) -> None:
    call(model, step, name, batch=2 if name == "uncond" and step >= 4 else 1)


def with_gradients(model: nn.Module, step: int, name: str) -> None:
    with torch.set_grad_enabled(name == "uncond" and step == 6):
        call(model, step, name)


def trained(model: nn.Module, step: int, name: str) -> None:
    model.train(step in (4, 5))
    call(model, step, name)


def run(make: Make, **settings: Any) -> tuple[ak.Summary, dict[str, list[int]]]:
    """Run a generation of two branches; return the summary, and where each branch ran blocks."""
    model = TINY["wan"].build()
    entered: list[str] = []
    ran: dict[str, list[int]] = {name: [] for name in TEXT}
    model.get_submodule("blocks.0").register_forward_pre_hook(lambda *_: entered.append("block"))
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS, **settings)
    with torch.no_grad():
        for step in range(1, STEPS + 1):
            for name in TEXT:
                entered.clear()
                with ak.cache_context(name):
                    make(model, step, name)
                ran[name] += [step] if entered else []
    return ak.summary(model), ran


@pytest.mark.parametrize(
    "settings", [{}, {"forecast": 1, "correct": True}], ids=["plain", "forecast"]
)
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (call, {}),
        (late, {"uncond": [3]}),
        (paused, {"uncond": [6]}),
        (paused_twice, {"uncond": [3, 6]}),
        (resized, {"uncond": [4]}),
        (with_gradients, {"uncond": [6, 7]}),
        (trained, {}),
    ],
)
def test_recomputed_are_the_reused_steps_in_which_blocks_ran(
    make: Make, expected: dict[str, list[int]], settings: dict[str, Any]
) -> None:
    summary, ran = run(make, **settings)
    assert summary.recomputed == expected
    assert summary.reused_steps
    for name in TEXT:
        both = sorted(set(ran[name]) & set(summary.reused_steps))
        assert summary.recomputed.get(name, []) == both


@pytest.mark.parametrize("settings", [{"decide_for": "branch"}, {"batch": "each"}])
def test_branches_and_videos_with_engines_of_their_own_recompute_nothing(
    settings: dict[str, Any],
) -> None:
    summary, _ = run(call, **settings)
    assert summary.reused_steps and summary.recomputed == {}


@pytest.mark.parametrize("name", ["latte", "cogvideox"])
def test_nothing_is_recomputed_without_guidance(name: str) -> None:
    model = ak.patch(TINY[name].build(), codebook=EVERY_THIRD, num_inference_steps=STEPS)
    for _ in range(2):
        denoise(TINY[name], model, STEPS)
        assert ak.summary(model).recomputed == {}


def test_the_printed_summary_names_recomputed_steps() -> None:
    lines = str(run(paused_twice)[0]).splitlines()
    assert [line.strip() for line in lines if "computed reusable steps" in line] == [
        "branch 'uncond' computed reusable steps 3 6"
    ]
    assert "computed reusable steps" not in str(run(call)[0])
