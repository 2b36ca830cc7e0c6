"""The plan: shapes and dtypes of the slots of a branch, from the shapes of its streams."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import adacache_kernels as ak
from adacache_kernels.memory.arena_provider import ArenaProvider
from adacache_kernels.memory.plan import SlotDemand, Storage, StreamShapes
from adacache_kernels.memory.report import MemoryReport
from adacache_kernels.memory.residual_store import ResidualStore
from adacache_kernels.models import BlockList, Layout, Stream
from tests.support.tiny_models.common_models import TINY, denoise

FRAMES, TOKENS, TEXT, CHANNELS = 3, 8, 5, 16
VIDEO, PROMPT = Stream("hidden_states", 0), Stream("encoder_hidden_states", 1)
DOUBLE = BlockList("double_blocks", (VIDEO, PROMPT), Layout.FRAME_MAJOR)
SINGLE = BlockList(
    "single_blocks",
    (VIDEO,),
    Layout.FRAME_MAJOR,
    joined=("encoder_hidden_states", "hidden_states"),
)


def shapes(batch: int, *, text: bool = True) -> StreamShapes:
    arguments = {"hidden_states": torch.empty(batch, FRAMES * TOKENS, CHANNELS)}
    if text:
        prompt = torch.empty(batch, TEXT, CHANNELS, dtype=torch.float16)
        arguments["encoder_hidden_states"] = prompt
    return StreamShapes.of((batch, FRAMES), DOUBLE, arguments)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_list_of_joined_streams_has_slots_for_all_their_tokens(batch: int) -> None:
    demand = SlotDemand((DOUBLE, SINGLE), 1, (("double_blocks", 0),))
    video = (batch, FRAMES * TOKENS, CHANNELS)
    slots = demand.slots(0, shapes(batch), Storage())
    assert {spec.key: (spec.shape, spec.dtype) for spec in slots} == {
        ("residual", 0, "double_blocks", 0, 0): (video, torch.float32),
        ("residual", 0, "double_blocks", 1, 0): ((batch, TEXT, CHANNELS), torch.float16),
        ("residual", 0, "single_blocks", 0, 0): (
            (batch, TEXT + FRAMES * TOKENS, CHANNELS),
            torch.float32,
        ),
        ("metric", "double_blocks", 0): (video, torch.float32),
    }


def test_a_stream_that_a_call_does_not_have_has_no_slot() -> None:
    demand = SlotDemand((DOUBLE, SINGLE), 1, ())
    slots = demand.slots(1, shapes(2, text=False), Storage())
    video = (2, FRAMES * TOKENS, CHANNELS)
    assert [(spec.key[2], spec.shape) for spec in slots] == [
        ("double_blocks", video),
        ("single_blocks", video),
    ]


@pytest.mark.parametrize("layout", list(Layout))
def test_a_slot_has_the_layout_of_its_list(layout: Layout) -> None:
    """The video enters the first list as [B, F*S, C] and is stored in the second list's layout."""
    batch = 1 if layout is Layout.UNBATCHED else 2
    other = BlockList("other_blocks", (VIDEO,), layout)
    spec = SlotDemand((DOUBLE, other), 1, ()).slots(0, shapes(batch), Storage())[-1]
    assert spec.key[2] == "other_blocks"
    split = layout.split(torch.empty(spec.shape), batch, FRAMES)
    assert split.shape == (batch, FRAMES, TOKENS, CHANNELS)


def test_eight_bits_have_one_scale_for_each_token() -> None:
    slots = SlotDemand((DOUBLE,), 2, ()).slots(0, shapes(2), Storage("int8"))
    assert [(spec.key[0], spec.shape, spec.dtype) for spec in slots] == [
        ("residual", (2, FRAMES * TOKENS, CHANNELS), torch.int8),
        ("scale", (2, FRAMES * TOKENS, 1), torch.float32),
    ] * 2 + [
        ("residual", (2, TEXT, CHANNELS), torch.int8),
        ("scale", (2, TEXT, 1), torch.float32),
    ] * 2


def test_a_model_that_has_not_run_uses_no_memory() -> None:
    model = ak.patch(TINY["wan"].build(), num_inference_steps=6)
    assert ak.summary(model).memory == MemoryReport(0, 0, 0, 0, "full precision", (), None)


@pytest.mark.parametrize("settings", [{}, {"cache_dtype": "int8"}])
def test_a_new_plan_takes_the_memory_of_the_old_one(settings: dict[str, Any]) -> None:
    """A budget for one plan is enough for plans of several sizes, one after another."""
    tiny = TINY["wan"]
    measured = ak.patch(tiny.build(), num_inference_steps=6, codebook={9.0: 3}, **settings)
    denoise(tiny, measured, 6, batch=3)
    arena = ak.summary(measured).memory.arena
    assert arena is not None
    model = ak.patch(
        tiny.build(),
        num_inference_steps=6,
        codebook={9.0: 3},
        max_cache_bytes=arena.mapped,
        **settings,
    )
    for batch in (3, 2, 3, 1, 2):
        denoise(tiny, model, 6, batch=batch)
        summary = ak.summary(model)
        assert summary.reused_steps and not summary.memory.refused


def test_nothing_is_planned_while_the_slots_are_handed_over() -> None:
    store = ResidualStore(ArenaProvider("1MiB"), Storage(), ())
    call = (0, 1, SlotDemand((DOUBLE,), 1, ()), shapes(1), torch.device("cpu"))
    with store.handed_over():
        assert store.ensure(*call) and store.arena is None
    store.ensure(*call)
    assert store.arena is not None and store.device == torch.device("cpu")
