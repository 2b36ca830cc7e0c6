"""Test the benchmark of scaling: the recorder counts, and the formulas are right by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from adacache_kernels.engine.ranks.agreement import agreed_sums
from adacache_kernels.models.other_libraries.rank_groups import RankGroup
from bench.runtime.scaling import predict, ranks, report
from bench.runtime.scaling.recorder import Message, Recorder, meetings
from tests.support.ranks import run_ranks

WAN = next(model for model in predict.models() if model.sizes.name.startswith("Wan"))
SMALL = ranks.Size(frames=3, side=8, layers=2)


def messages_on_rank() -> list[Message]:
    """Run collectives of known sizes, one of them ours."""
    group = RankGroup(dist.group.WORLD, "shards", "this test")
    with Recorder() as recorder:
        recorder.step = 3
        dist.all_reduce(torch.ones(5))
        dist.all_to_all_single(torch.empty(4), torch.ones(4))
        dist.all_gather_into_tensor(torch.empty(6, dtype=torch.int64), torch.ones(3).long())
        torch.ones(2).add(1)
        recorder.step = 4
        agreed_sums([group], torch.ones(1, 2, 7, 5), 1, has_previous=True)
    dist.all_reduce(torch.ones(1))  # After the context: not recorded.
    return recorder.messages


@pytest.mark.slow
def test_the_recorder_counts_collectives_bytes_and_owners() -> None:
    for messages in run_ranks(2, messages_on_rank):
        found = [(each.step, each.owner, each.sent) for each in messages]
        assert found == [(3, "model", 20), (3, "model", 16), (3, "model", 24), (4, "ours", 40)]


@pytest.mark.slow
def test_counts_of_a_split_wan_model() -> None:
    counted, other = run_ranks(2, ranks.count_all_on_rank, SMALL)
    for way, each in counted.items():
        # The ranks give unequally many tokens to the motion of the others; the rest is equal.
        one, two = (
            [(m.step, m.name, m.owner, m.sent * (m.name != "alltoall_base_")) for m in messages]
            for messages in (each.messages, other[way].messages)
        )
        assert one == two
        ours = {message.step for message in each.messages if message.owner == "ours"}
        assert ours == (set(each.computed) if way.startswith("measured") else set())
        for step in range(1, ranks.STEPS + 1):
            here = [m for m in each.messages if (m.step, m.owner) == (step, "model")]
            if way != "PAB":
                # In every block four exchanges, for queries, keys, values and the output.
                assert len(here) == (1 + 4 * SMALL.layers if step in each.computed else 1)
    decisions = [m.sent for m in counted["measured"].messages if m.owner == "ours"]
    assert set(decisions) == {12}
    assert len(counted["measured"].computed) < ranks.STEPS


def test_the_table_has_numbers_and_bytes() -> None:
    messages = [
        Message(1, "all_to_all_single", "model", 10),
        Message(1, "all_to_all_single", "model", 10),
        Message(1, "_allgather_base_", "ours", 12),
        Message(2, "all_gather_into_tensor", "model", 7),
        Message(3, "all_to_all_single", "model", 10),
    ]
    assert report.per_step(messages, "model", [1]) == "2 all-to-all, 20 B"
    assert report.per_step(messages, "model", [1, 3]) == "1 to 2 all-to-all, 10 to 20 B"
    assert report.per_step(messages, "model", [2]) == "1 gather, 7 B"
    assert report.per_step(messages, "ours", [2]) == "0"
    assert report.per_step(messages, "ours", [1]) == "1 gather, 12 B"
    assert report.per_step(messages, "model", []) == "-"


def test_speedups_are_ratios_within_a_round() -> None:
    def row(number: int, size: int, way: str, *seconds: float) -> dict[str, Any]:
        return {"round": number, "ranks": size, "way": way, "seconds": list(seconds)}

    times = [row(0, 1, "unpatched", 4.0), row(0, 2, "PAB", 2.0, 1.0), row(1, 2, "PAB", 1.0)]
    # Round 1 has no unpatched run.
    assert report.ratios(times, 2, "PAB", 1) == [2.0, 4.0]
    assert report.ratios(times, 2, "PAB", 2) == []


def test_exchanges_by_hand() -> None:
    part = predict.Part(312e12, exchanging=1)
    assert predict.part_seconds(WAN, part, "A100", 1) == pytest.approx(2.0)
    # Two GPUs: 1 s of work. A shard has 75600 * 5120 * 2 / 2 = 387 072 000 bytes; half of it goes
    # to the other GPU at 0.7 * 300 GB/s in 0.9216 ms, after 0.02 ms, four times.
    assert predict.part_seconds(WAN, part, "A100", 2) == pytest.approx(1 + 4 * 0.9416e-3)


def test_the_ring_between_nodes_by_hand() -> None:
    # 16 GPUs of two nodes: keys and values of a shard of 48 384 000 bytes at 0.7 * 50 GB/s.
    ring = 2 * 48_384_000 / 35e9
    exchanges = 4 * (20e-6 + 48_384_000 * 7 / 8 / 210e9)
    work = 16 * 156e12 * 1e-3  # Operations of one millisecond.
    part = predict.Part(work, exchanging=1)
    found = predict.part_seconds(WAN, part, "A100", 16)
    assert found == pytest.approx(1e-3 + exchanges + ring)
    overlapped = predict.part_seconds(WAN, replace(part, scores=work), "A100", 16)
    assert overlapped == pytest.approx(1e-3 + exchanges + ring - 1e-3)


def test_a_reused_step_by_hand() -> None:
    # Two calls of 1 ms outside of the blocks, and 6 * 774 144 000 bytes at 0.85 * 2 TB/s.
    expected = 2 * 1e-3 + 6 * 774_144_000 / 1.7e12
    assert predict.reused_seconds(WAN, "A100", 1) == pytest.approx(expected)


def test_operations_of_wan_by_hand() -> None:
    tokens, width = 75600, 5120
    block = 2 * tokens * (6 * width**2 + 2 * width * 13824 + 2 * width * (tokens + 512))
    assert sum(part.operations for part in WAN.parts) == pytest.approx(40 * block)


def test_nothing_is_saved_if_all_steps_are_computed() -> None:
    for model in predict.models():
        unpatched = predict.computed_seconds(model, "H100", 8)
        assert predict.static_seconds(model, "H100", 8, 1.0) > unpatched
        assert predict.measured_seconds(model, "H100", 8, 1.0) > unpatched
        assert predict.pab_seconds(model, "H100", 8) < unpatched


@pytest.mark.slow
def test_meetings_are_recorded_and_no_collective() -> None:
    for each in run_ranks(2, ranks.count_on_rank, "static, 50 %", SMALL):
        assert each.meetings
        assert all(meeting.sent > 0 for meeting in each.meetings)
        assert not [message for message in each.messages if message.owner == "ours"]


def test_the_recording_of_meetings_ends() -> None:
    from adacache_kernels.engine.ranks import ranks as patched

    original = patched.meet
    with meetings():
        assert patched.meet is not original
    assert patched.meet is original
