"""The check of writes: its cost, the way of its results to the host, and what it compares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.api.installation import installation_of
from adacache_kernels.engine.residuals import write_check
from adacache_kernels.engine.residuals.host_flags import HostFlags
from adacache_kernels.models import ADAPTERS, Adapter, Residual
from adacache_kernels.models.adapter_builders import split_block_list
from tests.engine.residuals.written_streams import (
    ADAPTER,
    CHANNELS,
    SCHEDULE,
    STEPS,
    Block,
    InPlace,
    Spoiling,
    Written,
    add,
    expected,
    generate,
    largest_difference,
)
from tests.support.tiny_models.special_models import OTHER_IMAGES
from tests.support.tiny_models.tiny_class import denoise

WITH_AND_WITHOUT = pytest.mark.parametrize(
    "inference", [False, True], ids=["versions", "inference"]
)
IGNORED = pytest.mark.filterwarnings("ignore::adacache_kernels.AdaCacheWarning")


@pytest.fixture(autouse=True)
def known_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "Written", ADAPTER)


@WITH_AND_WITHOUT
@pytest.mark.parametrize("branches", [1, 2])
def test_values_are_compared_in_the_first_recorded_step_alone(
    branches: int, inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each branch: 4 blocks with two streams each, in and out, and the input at the end.

    Nothing is compared at the entry of the first block, so that makes 2 * (4 + 3 + 1 + 1 + 1).
    """
    model = Written()
    counts: list[int] = []
    make = write_check.fingerprint

    def counted(x: Tensor) -> Any:
        counts[-1] += 1
        return make(x)

    monkeypatch.setattr(write_check, "fingerprint", counted)
    ak.patch(model, num_inference_steps=STEPS, schedule=SCHEDULE)
    model.register_forward_pre_hook(lambda *_: counts.append(0))
    for _ in range(2):
        counts.clear()
        generate(model, branches=branches, inference=inference)
        assert counts == [20] * branches + [0] * (branches * (STEPS - 1))


@IGNORED
@WITH_AND_WITHOUT
def test_values_are_compared_again_for_other_shapes(
    inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = Written(), []
    make = write_check.fingerprint
    monkeypatch.setattr(write_check, "fingerprint", lambda x: seen.append(x.shape) or make(x))
    ak.patch(model, num_inference_steps=8, schedule=[1, 3, 5])
    inputs = {"encoder_hidden_states": torch.ones(1, 5, CHANNELS), "timestep": torch.tensor(900.0)}
    with torch.inference_mode() if inference else torch.no_grad():
        for tokens in (12, 12, 16, 16):
            model(torch.ones(1, tokens, 4), **inputs)
    videos = [shape for shape in seen if shape[1] != 5]
    assert set(videos) == {(1, 12, CHANNELS), (1, 16, CHANNELS)}


@IGNORED
@WITH_AND_WITHOUT
def test_the_host_waits_once_before_the_first_reuse(
    inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device that has never finished, as seen by the host, step 2 would be reused wrongly."""
    monkeypatch.setattr(HostFlags, "have_arrived", property(lambda flags: False))
    model = Written(Block, Block, hints={0: add_unseen})
    ak.patch(model, num_inference_steps=STEPS, schedule=[1, 6])
    found, summary = generate(model, inference=inference), ak.summary(model)
    ak.unpatch(model)
    computed = sorted({*summary.computed_steps, *summary.recomputed["0"]})
    assert computed == [1, 2, 6] and len(summary.waits) == 2
    assert largest_difference(found, expected(model, computed)) < 1e-5


def test_the_host_does_not_ask_before_the_first_reuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostFlags, "have_arrived", property(lambda flags: False))
    model = ak.patch(Written(), num_inference_steps=STEPS, schedule=list(range(1, STEPS + 1)))
    generate(model, inference=True)
    assert ak.summary(model).waits == []


def add_unseen(x: Tensor, value: Tensor) -> None:
    """Add without a change of the version counter."""
    x.data.add_(value)


@IGNORED
@pytest.mark.parametrize("first", [3, 4, 5])
def test_a_hint_that_begins_later_is_seen_by_its_version(first: int) -> None:
    """Step 5 is the first recorded step with hints: step 4 is not stored, as 5 is computed too."""
    now = [0]

    def hint_later(x: Tensor, value: Tensor) -> None:
        if now[0] >= first:
            x.add_(value)

    model = Written(hints={1: hint_later})

    def count(*_: Any) -> None:
        now[0] = now[0] % STEPS + 1

    model.register_forward_pre_hook(count)
    ak.patch(model, num_inference_steps=STEPS, schedule=[1, 4, 5, 7])
    found, summary = generate(model, inference=False), ak.summary(model)
    ak.unpatch(model)
    assert summary.computed_steps == [1, 4, 5, 6, 7]
    if first > 3:  # A reused step cannot see a hint that was not there when it was computed.
        wanted = expected(model, summary.computed_steps)
        assert largest_difference(found, wanted) < 1e-5


class Gated(Block):
    """A block that scales the output of its attention in place, after it was tapped."""

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor
    ) -> tuple[Tensor, Tensor]:
        attention = self.video(hidden_states)
        gated = attention.mul_(temb) if self.in_place else attention * temb
        return hidden_states + gated, encoder_hidden_states

    in_place = False


class GatedInPlace(Gated):
    in_place = True


@IGNORED
@WITH_AND_WITHOUT
def test_a_tapped_output_that_is_written_to_is_copied(
    inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The distances of the second generation are those of the same block without writes."""
    attention = Residual(
        ("blocks",), ("video",), lambda run: run.tap("video") * run.arguments["temb"]
    )
    adapter = Adapter(
        ADAPTER.lists, {"s-attn": attention, "block": ADAPTER.residuals["block"]}, ADAPTER.frames
    )
    monkeypatch.setitem(ADAPTERS, "Written", adapter)
    distances = []
    for kind in (Gated, GatedInPlace):
        model: nn.Module = Written(*(kind,) * 3)
        ak.patch(model, num_inference_steps=STEPS, codebook={1e9: 2}, cache_res="s-attn")
        for _ in range(2):
            generate(model, inference=inference)
        distances.append(ak.summary(model).distances[1:])
    assert None not in distances[0]
    assert distances[1] == pytest.approx(distances[0], rel=1e-4)


def test_a_change_after_the_last_block_needs_the_whole_loop() -> None:
    (blocks,) = split_block_list(ADAPTER.lists[0], 4, [3])
    assert blocks.by_index and blocks.name == "blocks"
    (unchanged,) = split_block_list(ADAPTER.lists[0], 4, [])
    assert unchanged is ADAPTER.lists[0]


@WITH_AND_WITHOUT
def test_tokens_that_the_model_replaces_between_blocks_are_no_write(inference: bool) -> None:
    """HiDream gives each block other embeddings of the text, which do not reach its output."""
    tiny = OTHER_IMAGES["hidream"]
    model = ak.patch(tiny.build(), num_inference_steps=4, schedule=[1, 3])
    with torch.inference_mode(inference):
        denoise(tiny, model, 4)
    summary = ak.summary(model)
    assert summary.computed_steps == [1, 3] and "[" not in summary.found


def test_a_part_is_cut_again() -> None:
    parts = split_block_list(ADAPTER.lists[0], 6, [2])
    again = [part.name for each in parts for part in split_block_list(each, 6, [0, 2, 4])]
    assert again == ["blocks[0:1]", "blocks[1:3]", "blocks[3:5]", "blocks[5:]"]


@WITH_AND_WITHOUT
@pytest.mark.parametrize(
    "model, text",
    [
        ((InPlace,), "wrote into the input of the first block"),
        ((Spoiling,), "wrote into the input of the first block"),
        ((Block,), "the model changes a stream after block 0 of blocks"),
    ],
    ids=["in place", "scratch", "hints"],
)
def test_the_user_learns_what_was_found(
    model: tuple[type[Block]], text: str, inference: bool
) -> None:
    hints = {0: add} if model == (Block,) else {}
    patched = Written(*model * 3, hints=hints)
    ak.patch(patched, num_inference_steps=STEPS, schedule=SCHEDULE)
    with pytest.warns(ak.AdaCacheWarning, match=text):
        generate(patched, inference=inference)


class Recorder:
    """A recorder of the video's residuals, as a calibration sets it."""

    def __init__(self) -> None:
        self.residuals: list[Tensor] = []

    def take(self, branch: str, residuals: dict[str, Tensor]) -> None:
        self.residuals += [residual.clone() for residual in residuals.values()]

    def take_metric(self, block: tuple[str, int], residual: Tensor) -> None:
        self.residuals.append(residual.clone())


@WITH_AND_WITHOUT
def test_a_calibration_records_the_first_step_of_blocks_in_place(inference: bool) -> None:
    recorded = []
    for kind in (Block, InPlace):
        model = ak.patch(Written(*(kind,) * 3), num_inference_steps=STEPS, codebook={1e9: 1})
        engine: Any = installation_of(model).router.engine
        engine.recorder = recorder = Recorder()
        generate(model, inference=inference)
        recorded.append(recorder.residuals)
    assert len(recorded[0]) == len(recorded[1]) == 2 * STEPS
    for wanted, found in zip(*recorded, strict=True):
        assert wanted.norm() > 0 and (found - wanted).norm() < 1e-4 * wanted.norm()
