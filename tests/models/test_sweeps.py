"""Models that run their blocks several times in one forward call, once for each part of a batch."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor

import adacache_kernels as ak
from tests.support.oracles.branch_residual import BranchResiduals
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.tiny_models.sweeping import (
    HALVES,
    STEPS,
    TIMES,
    WHOLE,
    Block,
    Sweeping,
    TwoStreamBlock,
    WritingBlock,
    contexts,
    denoise,
    latents,
)

SCHEDULE = [1, 2, 3, 6, 9, 12]
REUSING: dict[str, Any] = {"schedule": SCHEDULE, "num_inference_steps": STEPS}
KINDS = [(Block, False), (WritingBlock, False), (TwoStreamBlock, False), (TwoStreamBlock, True)]
CHANGED = "the number of sweeps over the blocks of blocks has changed from"


def patched(model: Sweeping, **settings: Any) -> Sweeping:
    ak.patch(model, **{**REUSING, **settings})
    return model


def whole(block: type[Block] = Block, *, chained: bool = False) -> Sweeping:
    """Return the same model, which runs its whole batch in one sweep."""
    model = Sweeping(block, chained=chained)
    model.parts = WHOLE
    return model


def check_equal(found: list[Tensor], expected: list[Tensor], uncached: list[Tensor]) -> None:
    assert all(relative(a, b) < 1e-5 for a, b in zip(found, expected, strict=True))
    assert relative(expected[-2], uncached[-2]) > 1e-3


@pytest.mark.parametrize(("block", "chained"), KINDS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"forecast": 1},
        {"forecast": 2},
        {"batch": "each"},
        {"decide_for": "branch", "guidance_rows": 2},
        {"schedule": None, "codebook": {1e9: 3}, "apply_moreg": True, "moreg_steps": (1, STEPS)},
        {"schedule": None, "codebook": {1e9: 3}, "measure": "forecast-error", "forecast": 1},
    ],
    ids=str,
)
def test_sweeps_are_as_one_batch(
    block: type[Block], chained: bool, settings: dict[str, Any]
) -> None:
    """The rows do not depend on each other, so both give the same, reused or not."""
    model, other = Sweeping(block, chained=chained), whole(block, chained=chained)
    uncached = denoise(other)
    found, expected = denoise(patched(model, **settings)), denoise(patched(other, **settings))
    check_equal(found, expected, uncached)
    assert ak.summary(model).computed_steps == ak.summary(other).computed_steps


def test_sweeps_in_eight_bits() -> None:
    """Each sweep has scales of its own."""
    model, other = patched(Sweeping(), cache_dtype="int8"), patched(whole(), cache_dtype="int8")
    check_equal(denoise(model), denoise(other), denoise(whole()))


def test_the_summary_names_the_sweeps() -> None:
    model = patched(Sweeping())
    denoise(model)
    summary = ak.summary(model)
    assert summary.found == "blocks(x) of 3, in 2 sweeps, by its first forward"
    assert summary.computed_steps == SCHEDULE and not summary.reasons


def test_four_videos_of_two_sweeps() -> None:
    model, other = Sweeping(), whole()
    model.parts = (slice(2, None), slice(2))
    uncached = denoise(whole(), rows=4)
    settings = {"schedule": None, "codebook": {1e9: 3}}
    found, expected = (denoise(patched(x, **settings), rows=4) for x in (model, other))
    check_equal(found, expected, uncached)


@pytest.mark.parametrize(("parts", "rounds"), [(2 * WHOLE, 1), (WHOLE, 2), (HALVES, 2)])
def test_sweeps_over_all_rows(parts: tuple[slice, ...], rounds: int) -> None:
    """The second sweep may begin with the same tokens as the first one, or with its output."""
    model = Sweeping()
    model.parts, model.rounds = parts, rounds
    oracle = BranchResiduals(model, {"blocks": {"x": None}})
    expected: list[Tensor] = []

    def forward(*args: Any) -> Tensor:
        with oracle.call("", len(expected) + 1 in SCHEDULE):
            expected.append(Sweeping.forward(model, *args))
        return expected[-1]

    model.forward = forward  # type: ignore[assignment,method-assign]
    denoise(model)
    found = Sweeping()
    found.parts, found.rounds = parts, rounds
    uncached = denoise(found)
    check_equal(denoise(patched(found)), expected, uncached)


PARTS = {
    "fewer": HALVES[:1],
    "only the other": HALVES[1:],
    "more": (*HALVES, slice(1)),
}


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("changed", [{2}, {4}, {5}, {4, 5, 6, 7}, set(range(7, 12))], ids=str)
def test_a_changed_number_of_sweeps_is_computed(kind: str, changed: set[int]) -> None:
    """In such steps, counted from 0, the call is repeated with its blocks, for a reason."""
    parts = [PARTS[kind] if step in changed else HALVES for step in range(STEPS)]
    model = patched(Sweeping())
    with pytest.warns(ak.AdaCacheWarning, match=CHANGED):
        found = denoise(model, parts)
    summary = ak.summary(model)
    reason = f"{CHANGED} 2 to {len(PARTS[kind])}, so such calls are computed"
    of_reason = [steps for text, steps in summary.reason_steps.items() if text.startswith(reason)]
    first, *others = of_reason[0]
    assert first == min(changed) + 1 and {step - 1 for step in others} < changed
    computed = {*summary.computed_steps, *chain(*summary.recomputed.values())}
    assert changed < {step - 1 for step in computed} and len(computed) < STEPS
    check_steps(found, parts, computed)


def check_steps(found: list[Tensor], parts: list[Any], computed: set[int]) -> None:
    """Check that these steps, counted from 1, are those of the unpatched model, and no others."""
    plain, x = Sweeping(), latents(2)
    for step, t in enumerate(TIMES):
        plain.parts = parts[step]
        assert torch.equal(found[step], plain(x, t, contexts())) == (step + 1 in computed)
        x = x - 0.05 * found[step]


def test_the_next_generation_has_both_sweeps_again() -> None:
    """A model may leave one out in the last steps of each generation."""
    parts = [HALVES[:1] if step > 8 else HALVES for step in range(STEPS)]
    model = patched(Sweeping(), schedule=[1, 2, 5, 12])
    with pytest.warns(ak.AdaCacheWarning, match=CHANGED):
        first, again = denoise(model, parts), denoise(model, parts)
    assert all(map(torch.equal, first, again))
    summary = ak.summary(model)
    assert summary.reused_steps[:4] == [3, 4, 6, 7] and summary.reasons


def test_rows_in_another_order_are_another_condition() -> None:
    """The sweep of a row changes with its place, so a residual may belong to the other row."""
    prompt = contexts()
    swapped = prompt.flip(0)
    prompts = [swapped if step > 5 else prompt for step in range(STEPS)]
    model = patched(Sweeping(), schedule=[1, 2, 5, 12])
    found = denoise(model, prompts=prompts)
    plain, x = Sweeping(), latents(2)
    for step in range(7):
        expected = plain(x, TIMES[step], prompts[step])
        x = x - 0.05 * found[step]
    assert torch.equal(found[6], expected)
    assert "context changed in the middle" in str(ak.summary(model).reasons)


def test_a_list_that_runs_less_often_than_another_is_refused() -> None:
    model = Sweeping(TwoStreamBlock, chained=True)
    own = model.sweep
    sweeps: list[int] = []

    def sweep(*args: Any) -> Tensor:
        sweeps.append(1)
        model.skips_singles = len(sweeps) == 2
        output: Tensor = own(*args)
        return output

    model.sweep = sweep  # type: ignore[assignment,method-assign]
    ak.patch(model, num_inference_steps=STEPS)
    with pytest.raises(ValueError, match="ran 2 times through blocks and 1 time"):
        denoise(model)
    assert not ak.is_patched(model)


def test_parts_of_different_sizes_are_refused() -> None:
    model = Sweeping()
    model.parts = (slice(1), slice(1, None))
    ak.patch(model, num_inference_steps=STEPS)
    with pytest.raises(ValueError, match="ran 2 times in one forward call, and differently"):
        denoise(model, rows=3)
    assert not ak.is_patched(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forecast": 1, "correct": True}, "correct=True: Sweeping runs its blocks 2 times"),
        (
            {"decision": "graph", "schedule": None},
            'decision="graph": Sweeping runs its blocks 2 times .* choose "async"',
        ),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    model = patched(Sweeping(), **settings)
    with pytest.raises(ValueError, match=message):
        denoise(model)
    assert not ak.is_patched(model)
