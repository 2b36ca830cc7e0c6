"""decide with several videos in one batch: the largest distance or the mean decides."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from adacache_kernels import ops
from adacache_kernels.ops import Flag, State
from tests.support.oracles.ops_in_float64 import exact_batch_decision
from tests.support.ptx_emulator import emulated

EPS = torch.finfo(torch.float32).eps
BACKENDS = ("auto", "reference", "triton")
BOOK = [(0.3, 8.0), (0.6, 4.0), (1.2, 2.0)]
STATE = [3.0, 2.0, 0.5, 7.0, 9.0, 11.0, 0.25, 13.0, 0.75, 4.0]
# Bad values in a single row of one location; the last location has the motion.
BAD_VALUES = {
    "nothing": [],
    "not a number": [((0, 1, 0, 1), math.nan)],
    "infinite": [((1, 0, 0, 0), math.inf)],
    "no size": [((0, slice(1, None, 2), slice(None), 1), 0.0)],
    "no motion": [((1, slice(0, None, 2), slice(None), 4), 0.0)],
    "two kinds": [((0, 0, 0, 0), math.nan), ((1, slice(1, None, 2), slice(None), 1), 0.0)],
}


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with mock.patch.dict(os.environ, {"ADACACHE_BACKEND": request.param}), emulated(90):
        yield request.param


def random_sums(rows: int, parts: int = 3) -> Tensor:
    """Return sums of two locations and one frame stride; every row has another size."""
    generator = torch.Generator().manual_seed(rows)
    sizes = torch.linspace(0.5, 4.0, rows).view(1, rows, 1, 1)
    return (torch.rand(2, rows, parts, 5, generator=generator) + 0.2) * sizes


def decided(
    sums: Tensor, *, videos: int, batch: str, arguments: tuple[Any, ...]
) -> tuple[list[float], list[float]]:
    """Return the state and the motions after decide."""
    state, motions = torch.tensor(STATE), torch.linspace(0.25, 1.0, videos)
    step, metric, has_previous, apply_moreg, in_window = arguments
    ops.decide(
        state,
        sums,
        torch.tensor(BOOK).T.contiguous(),
        ops.DecideSettings(metric, apply_moreg, batch=batch),
        step,
        has_previous=has_previous,
        in_window=in_window,
        videos=videos,
        motions=motions if apply_moreg else None,
    )
    return state.tolist(), motions.tolist()


def expected(
    sums: Tensor, *, videos: int, batch: str, arguments: tuple[Any, ...]
) -> tuple[list[float], list[float]]:
    exact = sums.double().sum(dim=2).tolist()
    motions = torch.linspace(0.25, 1.0, videos).tolist()
    # The oracle has no sequence number.
    state, motions = exact_batch_decision(
        STATE, exact, BOOK, *arguments, videos=videos, batch=batch, motions=motions
    )
    return state, motions


def assert_close(found: list[float], exact: list[float]) -> None:
    """Compare up to neighbours in float32, because float64 rounds in another order.

    Where 1 - cosine cancels, the rounding is that of 1.
    """
    for one, other in zip(found, exact, strict=True):
        both_undefined = math.isnan(one) and math.isnan(other)
        assert both_undefined or math.isclose(one, other, rel_tol=4 * EPS, abs_tol=1e-12)


@pytest.mark.parametrize("bad", BAD_VALUES)
@pytest.mark.parametrize("metric", ops.METRICS)
def test_decide(metric: str, bad: str) -> None:
    for batch, apply_moreg in itertools.product(("any", "mean"), (True, False)):
        check_decide(metric, bad, batch, apply_moreg)


# The partial sums of each of a video's two rows. The kernel adds 1024 at once, 8 for each thread.
# The last partial sum has each of these 8 positions, and one in a second round.
@pytest.mark.parametrize("parts", [20, 50, 90, 115, 150, 175, 210, 240, 300, 600])
def test_many_partial_sums(parts: int) -> None:
    check_many_partial_sums(parts)


def check_many_partial_sums(parts: int) -> None:
    sums = random_sums(4, parts)
    how = {"videos": 2, "batch": "any", "arguments": (5, "l1", True, True, True)}
    (state, motions), (exact, exact_motions) = decided(sums, **how), expected(sums, **how)
    assert_close(state[1:9], exact[1:9])
    assert_close(motions, exact_motions)


def check_decide(metric: str, bad: str, batch: str, apply_moreg: bool) -> None:
    """Compare one to three videos of one and two rows with the oracle."""
    for videos, guidance in itertools.product((1, 2, 3), (1, 2)):
        sums = random_sums(videos * guidance)
        for index, value in BAD_VALUES[bad]:
            if videos * guidance > 1:
                sums[index] = value
        how = {"videos": videos, "batch": batch, "arguments": (5, metric, True, apply_moreg, True)}
        (state, motions), (exact, exact_motions) = decided(sums, **how), expected(sums, **how)
        assert_close(state[1:9], exact[1:9])
        if apply_moreg:
            assert_close(motions, exact_motions)


def test_rows_of_guidance_are_those_a_video_apart() -> None:
    """Two videos with two guidance rows: rows 0 and 2 belong to the first.

    If rows 0 and 1 did, both videos would have a distance of 1/2.
    """
    first = torch.tensor([0.25, 0.75, 0.25, 0.75])
    sums = torch.stack([first, torch.ones(4), torch.zeros(4)], dim=1).view(1, 4, 1, 3)
    state, _ = decided(sums, videos=2, batch="any", arguments=(3, "l1", True, False, False))
    assert (state[State.DISTANCE], state[State.RATE]) == (0.75, 2)
    state, _ = decided(sums, videos=2, batch="mean", arguments=(3, "l1", True, False, False))
    assert (state[State.DISTANCE], state[State.RATE]) == (0.5, 4)
    pooled, _ = decided(sums, videos=1, batch="any", arguments=(3, "l1", True, False, False))
    assert pooled[State.DISTANCE] == 0.5


def test_motion_is_that_of_each_video() -> None:
    """The moving video has the smaller distance without motion, and decides with it."""
    sums = torch.tensor([[0.5, 1, 0, 1.0, 4.0], [0.25, 1, 0, 3.0, 4.0]]).view(1, 2, 1, 5)
    state, motions = torch.tensor(STATE), torch.ones(2)
    settings = ops.DecideSettings(apply_moreg=True, moreg_a=0.25, moreg_b=2.0, mograd_mul=0.5)
    book = torch.tensor(BOOK).T.contiguous()
    ops.decide(state, sums, book, settings, 3, in_window=True, videos=2, motions=motions)
    # Scores 1 and 9; gradients 0 and 0.5 * 8.
    assert state[State.RAW_DISTANCE] == 0.25
    assert state[State.MOTION] == 9
    assert state[State.DISTANCE] == 0.25 * 13
    assert motions.tolist() == [1, 9]
    assert state[State.PREVIOUS_MOTION] == STATE[State.PREVIOUS_MOTION]


def test_of_several_the_first_one_decides() -> None:
    """Scores 1 and 2 make both distances 1/2."""
    sums = torch.tensor([[0.5, 1, 0, 1.0, 4.0], [0.25, 1, 0, 2.0, 4.0]]).view(1, 2, 1, 5)
    state, book = torch.tensor(STATE), torch.tensor(BOOK).T.contiguous()
    settings = ops.DecideSettings(apply_moreg=True, moreg_a=0.25, moreg_b=1.0, mograd_mul=0.0)
    ops.decide(state, sums, book, settings, 3, in_window=True, videos=2, motions=torch.ones(2))
    assert (state[State.DISTANCE], state[State.RAW_DISTANCE], state[State.MOTION]) == (0.5, 0.5, 1)


@pytest.mark.parametrize("batch", ops.BATCHES)
@pytest.mark.parametrize("video", [0, 1, 2])
def test_one_video_without_a_distance_is_enough(batch: str, video: int) -> None:
    for value, column, flag in (
        (math.nan, 0, Flag.NOT_FINITE),
        (-math.inf, 0, Flag.NOT_FINITE),
        (0.0, 1, Flag.ZERO_DENOMINATOR),
    ):
        sums = torch.ones(1, 3, 1, 3)
        sums[0, video, 0, column] = value
        state, _ = decided(sums, videos=3, batch=batch, arguments=(3, "l1", True, False, False))
        assert (state[State.FLAGS], state[State.RATE]) == (flag, 1)
        assert not math.isfinite(state[State.DISTANCE])


@pytest.mark.parametrize("batch", ops.BATCHES)
def test_nothing_to_compare_with(batch: str) -> None:
    how = {"videos": 2, "batch": batch, "arguments": (5, "l1", False, True, False)}
    state, motions = decided(random_sums(2), **how)
    assert (state[State.FLAGS], state[State.RATE]) == (Flag.NO_PREVIOUS, 1)
    assert motions == [0.25, 1.0]


def test_a_clock_tells_whether_motion_counts() -> None:
    sums, book = random_sums(4), torch.tensor(BOOK).T.contiguous()
    settings = ops.DecideSettings("cosine", apply_moreg=True)
    for clock, by_host in (
        (torch.tensor([5.0, 1.0, 1.0]), {"step": 5, "has_previous": True, "in_window": True}),
        (torch.tensor([6.0, 1.0, 0.0]), {"step": 6, "has_previous": True, "in_window": False}),
        (torch.tensor([6.0, 0.0, 1.0]), {"step": 6, "has_previous": False, "in_window": True}),
    ):
        found = []
        by_clock = {"step": 0, "has_previous": True, "in_window": True, "clock": clock}
        for values in (by_clock, by_host):
            state, motions = torch.tensor(STATE), torch.tensor([0.5, 0.75])
            ops.decide(state, sums, book, settings, **values, videos=2, motions=motions)
            found.append(torch.cat([state, motions]).nan_to_num(-1.0).tolist())
        assert found[0] == found[1]


def test_bad_input() -> None:
    sums, book = random_sums(4), torch.tensor(BOOK).T.contiguous()

    def decide(**options: Any) -> None:
        moreg = ops.DecideSettings(apply_moreg=True)
        ops.decide(torch.tensor(STATE), sums, book, moreg, 3, **options)

    with pytest.raises(ValueError, match="videos is 3, expected a number that divides the 4 rows"):
        decide(videos=3, motions=torch.ones(3))
    with pytest.raises(ValueError, match="videos is 0"):
        decide(videos=0)
    with pytest.raises(ValueError, match="batch is 'each', expected one of 'any', 'mean'"):
        ops.DecideSettings(batch="each")
    with pytest.raises(ValueError, match=r"motions is None.* of 2 videos; pass torch.ones\(2\)"):
        decide(videos=2)
    with pytest.raises(ValueError, match=r"motions has shape \(3,\), expected \(2,\)"):
        decide(videos=2, motions=torch.ones(3))
    with pytest.raises(TypeError, match=r"motions is torch\.float64"):
        decide(videos=2, motions=torch.ones(2, dtype=torch.float64))
