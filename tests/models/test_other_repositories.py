"""Doubles of the models of other repositories: cached as exactly as by blocks, or with a reason."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.oracles.branch_residual import BranchResiduals
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.tiny_models.other_repositories.double import Double
from tests.support.tiny_models.other_repositories.doubles import DOUBLES
from tests.support.tiny_models.other_repositories.sampling import STEPS, ComputedCalls, sample

SEEDS = (0, 1)
REUSING = {"codebook": {float("inf"): 4}, "num_inference_steps": STEPS}
pytestmark = pytest.mark.slow
NAMES = pytest.mark.parametrize("name", DOUBLES)


@dataclass
class Outcome:
    """The result of patching a double and sampling one video for each seed.

    Args:
        model: the patched model.
        videos: the latents after each step, by seed.
        computed: for each call of all videos, whether the blocks ran.
        reasons: everything that was warned or raised.
        refused: whether an error was raised.
    """

    model: nn.Module
    videos: list[list[Tensor]] = field(default_factory=list)
    computed: list[bool] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    refused: bool = False


def run(double: Double, *, named: bool, **settings: Any) -> Outcome:
    """Patch a new model and sample; the calls have the names of their branches if `named`."""
    model = double.build()
    calls, outcome = ComputedCalls(double, model), Outcome(model)

    @contextmanager
    def around(branch: str) -> Iterator[None]:
        with ak.cache_context(branch):
            yield
        calls.end_call()

    @contextmanager
    def unnamed(_branch: str) -> Iterator[None]:
        yield
        calls.end_call()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            ak.patch(double.target(model), **{**REUSING, **settings})
            for seed in SEEDS:
                outcome.videos.append(sample(double, model, seed, around if named else unnamed))
        except (TypeError, ValueError) as error:
            outcome.refused = True
            outcome.reasons.append(str(error))
    outcome.reasons += [str(w.message) for w in caught if w.category is ak.AdaCacheWarning]
    outcome.computed = calls.computed
    return outcome


@functools.cache
def unpatched(name: str) -> list[list[Tensor]]:
    """Return the videos of the model as it is."""
    return [sample(DOUBLES[name], DOUBLES[name].build(), seed) for seed in SEEDS]


def by_blocks(double: Double, computed: list[bool]) -> list[list[Tensor]]:
    """Return the videos in which the same calls are computed, with a residual for each block."""
    model, plan = double.build(), iter(computed)
    oracle = BranchResiduals(model, double.streams)

    def around(branch: str) -> Any:
        return oracle.call(branch, next(plan))

    return [sample(double, model, seed, around) for seed in SEEDS]


def check(name: str, outcome: Outcome) -> None:
    """Check that reused calls are as exact as by blocks, or that all were computed for a reason."""
    double, plain = DOUBLES[name], unpatched(name)
    reuses = not outcome.refused and not all(outcome.computed)
    assert reuses == (not double.reason)
    if not reuses:
        assert outcome.reasons
        check_computed(double, outcome, plain)
        return
    by_plan = by_blocks(double, outcome.computed)
    for video, oracle, uncached in zip(outcome.videos, by_plan, plain, strict=True):
        # Reuse changes the video by a tenth and more, and so does a wrong residual. Roundings
        # grow from step to step, to 1e-4.
        assert relative(oracle[-1], uncached[-1]) > 2e-2
        assert all(relative(a, b) < 1e-3 for a, b in zip(video, oracle, strict=True))
    calls = len(outcome.computed) // len(SEEDS)
    for start in range(0, len(outcome.computed), calls):
        assert all(outcome.computed[start : start + len(double.branches)])


def check_computed(double: Double, outcome: Outcome, plain: list[list[Tensor]]) -> None:
    """Check that a model that reuses nothing makes the videos of the unpatched model."""
    target = double.target(outcome.model)
    if not outcome.refused:
        ak.unpatch(target)
    assert not ak.is_patched(target)
    expected = [sample(double, outcome.model, seed) for seed in SEEDS]
    found = expected if outcome.refused else outcome.videos
    for video, own, other in zip(found, expected, plain, strict=True):
        assert all(map(torch.equal, video, own))
        # The other model lies at other addresses, where sums round otherwise.
        assert relative(own[-1], other[-1]) < 1e-3


@NAMES
def test_named_branches(name: str) -> None:
    check(name, run(DOUBLES[name], named=True))


@NAMES
def test_counted_calls_with_motion(name: str) -> None:
    """Frames are known in all models of videos, and the attention residual in some."""
    double = DOUBLES[name]
    motion = {"apply_moreg": True, "moreg_steps": (1, STEPS)} if double.motion else {}
    outcome = run(double, named=False, calls_per_step=len(double.branches), **motion)
    check(name, outcome)
    if double.reason:
        assert any(re.search(double.reason, reason) for reason in outcome.reasons)
        return
    summary = ak.summary(double.target(outcome.model))
    assert any(score not in (None, 1) for score in summary.motion_scores) == double.motion
    assert ("s-attn" in summary.measured) == double.attention


@NAMES
def test_calls_without_names_or_a_count(name: str) -> None:
    check(name, run(DOUBLES[name], named=False))
