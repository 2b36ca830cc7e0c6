"""Writes into streams that no version counter shows, against an oracle with one residual a block.

A model whose blocks or hints write in place is cached rightly from the next computed step on. Its
first step is computed, and so is the second, because the residuals of the first are lost.
"""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.models import ADAPTERS
from tests.engine.residuals.written_streams import (
    ADAPTER,
    SCHEDULE,
    STEPS,
    WRITES,
    Block,
    Hints,
    InPlace,
    Spoiling,
    TextInPlace,
    Written,
    add,
    always,
    expected,
    generate,
    largest_difference,
)

pytestmark = pytest.mark.filterwarnings("ignore::adacache_kernels.AdaCacheWarning")
WITH_AND_WITHOUT = pytest.mark.parametrize(
    "inference", [False, True], ids=["versions", "inference"]
)
LATER = [1, 2, 4, 7]
"""The computed steps, if the residuals of step 1 are lost."""


@pytest.fixture(autouse=True)
def known_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "Written", ADAPTER)


def check(
    model: nn.Module,
    computed: list[int],
    *,
    inference: bool,
    branches: int = 1,
    hints: Hints = always,
    **settings: Any,
) -> ak.Summary:
    """Run a generation that computes these steps, and compare it with the oracle.

    Within 1e-5: rounding only. A hint that is counted twice moves the latents by 1e-2 and more.
    """
    settings = {"schedule": SCHEDULE, **settings}
    ak.patch(model, num_inference_steps=STEPS, **settings)
    found = generate(model, branches=branches, inference=inference, hints=hints)
    summary = ak.summary(model)
    ak.unpatch(model)
    assert summary.computed_steps == computed
    wanted = expected(model, computed, branches=branches, hints=hints)
    assert largest_difference(found, wanted) < 1e-5
    return summary


@WITH_AND_WITHOUT
def test_a_model_that_writes_nothing_is_cached_from_its_first_step(inference: bool) -> None:
    check(Written(), SCHEDULE, inference=inference)


@WITH_AND_WITHOUT
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("places", [(0,), (0, 2), (2,)], ids=str)
def test_hints_between_blocks_cut_the_list(
    places: tuple[int, ...], write: str, inference: bool
) -> None:
    model = Written(hints={index: WRITES[write] for index in places})
    summary = check(model, LATER, inference=inference)
    assert f"blocks[0:{places[0] + 1}]" in summary.found


@WITH_AND_WITHOUT
def test_a_hint_after_the_last_block_changes_nothing(inference: bool) -> None:
    check(Written(hints={3: add}), SCHEDULE, inference=inference)


@WITH_AND_WITHOUT
def test_a_hint_in_the_text_alone_cuts_the_list(inference: bool) -> None:
    check(Written(text_hints={1: add}), LATER, inference=inference)


@WITH_AND_WITHOUT
def test_hints_in_the_second_branch_alone_cut_the_list_for_both(inference: bool) -> None:
    model = Written(hints={1: add})
    check(model, LATER, inference=inference, branches=2, hints=lambda branch: branch == 1)


@WITH_AND_WITHOUT
def test_a_hook_that_writes_between_blocks_cuts_the_list(inference: bool) -> None:
    model = Written()

    def write(_module: nn.Module, _args: Any, output: Tensor) -> None:
        output.add_(1.0)

    model.markers[2].register_forward_hook(write)
    check(model, LATER, inference=inference)


@WITH_AND_WITHOUT
@pytest.mark.parametrize(
    "kinds",
    [
        (InPlace, Block, Block, Block),
        (InPlace,) * 4,
        (TextInPlace,) * 4,
        (Spoiling, Block, Block, Block),
        (Spoiling,) * 4,
    ],
    ids=["first", "all", "text", "scratch in the first", "scratch in all"],
)
@pytest.mark.parametrize("branches", [1, 2])
def test_blocks_that_write_into_their_input_are_cached(
    kinds: tuple[type[Block], ...], branches: int, inference: bool
) -> None:
    check(Written(*kinds), LATER, inference=inference, branches=branches)


@WITH_AND_WITHOUT
def test_a_write_into_the_input_of_a_later_block_changes_nothing(inference: bool) -> None:
    check(Written(Block, InPlace, Spoiling, Block), SCHEDULE, inference=inference)


@WITH_AND_WITHOUT
def test_blocks_in_place_with_hints_are_cut_and_copied(inference: bool) -> None:
    check(Written(*(InPlace,) * 4, hints={1: add}), LATER, inference=inference)


@WITH_AND_WITHOUT
def test_a_hook_that_writes_into_the_input_of_the_first_block(inference: bool) -> None:
    model = Written()

    def write(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        args[0].add_(1.0)

    model.blocks[0].register_forward_pre_hook(write)
    ak.patch(model, num_inference_steps=STEPS, schedule=SCHEDULE)
    found = generate(model, inference=inference)
    assert ak.summary(model).computed_steps == LATER
    assert found[0]
