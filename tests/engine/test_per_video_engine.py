"""batch="each": every video of a batch has the schedule that it has in a batch of its own."""

from __future__ import annotations

import json
import math
import statistics
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from diffusers.utils import BaseOutput
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.api.target import attached_engine
from adacache_kernels.config.adacache_config import AdaCacheConfig
from adacache_kernels.engine.reports.merge_summaries import merge_experts
from adacache_kernels.memory.arena_provider import ArenaProvider
from adacache_kernels.models import Frames
from tests.engine.batched_videos import (
    STEPS,
    Replay,
    Video,
    call,
    distances,
    generate,
    patched,
    run,
    two_videos,
)
from tests.support.rounding import close, close_numbers
from tests.support.tiny_models.common_models import FOUR, TINY
from tests.support.tiny_models.description import noise
from tests.support.tiny_pipelines.latte_and_wan import embeds, latte
from tests.support.tiny_pipelines.two_experts import experts


def each(videos: list[Video], **settings: Any) -> nn.Module:
    return patched(videos, batch="each", **settings)


@pytest.mark.parametrize("guidance", [1, 2])
@pytest.mark.parametrize("name", FOUR)
def test_a_batch_equals_its_videos_alone(name: str, guidance: int) -> None:
    """Up to rounding: the rows of a video make a call of their own, as without the others."""
    videos = two_videos(name, guidance)
    between = statistics.mean(statistics.median(distances([video])) for video in videos)
    book = {between / 2: 4, between: 3, 2 * between: 2, 9.0: 1}
    together = each(videos, codebook=book)
    alone = [each([video], codebook=book) for video in videos]
    found = run(together, videos)
    outputs = [run(model, [video]) for model, video in zip(alone, videos, strict=True)]
    for output, *expected in zip(found, *outputs, strict=True):
        assert close(output, torch.stack(expected, dim=1).flatten(0, 1))
    summary, summaries = ak.summary(together), [ak.summary(model) for model in alone]
    for video, expected in zip(summary.videos, summaries, strict=True):
        assert video.computed_steps == expected.computed_steps
        assert close_numbers(video.distances, expected.distances)
    first, second = summaries
    assert first.reused_steps
    assert second.computed_steps != first.computed_steps


def test_a_batch_equals_that_of_the_model_where_every_step_is_computed() -> None:
    """Within the rounding of a matrix product in another batch size: the sum of some hundred
    products of the size of the output, each rounded to 2^-24."""
    videos = two_videos("wan", guidance=2)
    found = run(each(videos, codebook={9.0: 1}), videos)
    expected = run(TINY["wan"].build(), videos)
    for output, exact in zip(found, expected, strict=True):
        assert torch.allclose(output, exact, rtol=0, atol=500 * 2**-24 * exact.abs().max().item())


def test_the_schedules_are_those_of_the_replay() -> None:
    videos = [*two_videos("wan"), Video(TINY["wan"], 20, 0.5)]
    model = each(videos)
    run(model, videos)
    found = ak.summary(model)
    schedules = [Replay([video], "any").computed for video in videos]
    assert [video.computed_steps for video in found.videos] == schedules
    assert found.computed_steps == sorted(set().union(*schedules))
    assert found.reused_steps == sorted({*range(1, STEPS + 1)} - set().union(*schedules))


def counted(model: nn.Module) -> list[int]:
    """Return a list that receives the number of rows of each run of the first block."""
    rows: list[int] = []
    model.blocks[0].register_forward_hook(lambda _block, args, _out: rows.append(len(args[0])))
    return rows


def test_videos_that_reuse_run_no_block() -> None:
    videos = two_videos("wan", guidance=2)
    model = each(videos)
    rows = counted(model)
    run(model, videos)
    computed = [len(video.computed_steps) for video in ak.summary(model).videos]
    assert rows == [2] * sum(computed)


def test_guidance_in_two_calls() -> None:
    videos = two_videos("wan")
    with torch.no_grad():

        def generate(model: nn.Module, which: list[Video]) -> list[Tensor]:
            outputs = []
            for step in range(1, STEPS + 1):
                with ak.cache_context("cond"):
                    outputs += call(model, which, step)
                with ak.cache_context("uncond"):
                    outputs += call(model, which, step, encoder_hidden_states=no_text(which))
            return outputs

        together, alone = each(videos), [each([video]) for video in videos]
        found = generate(together, videos)
        first, second = (generate(m, [v]) for m, v in zip(alone, videos, strict=True))
    for output, *expected in zip(found, first, second, strict=True):
        assert close(output, torch.cat(expected))
    assert ak.summary(together).branches == ["cond", "uncond"]
    assert ak.summary(together).videos[0].reused_steps


def no_text(videos: Sequence[Video]) -> Tensor:
    return torch.zeros_like(torch.cat([video.text for video in videos]))


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
def test_a_pipeline_of_two_prompts(guidance_scale: float) -> None:
    """One call has both guidance rows of a video."""
    settings = {"batch": "each", "codebook": {0.105: 3, 0.2: 2, 9.0: 1}, "cache_res": "block"}
    pipe = ak.patch(latte(), **settings)
    together = generate(pipe, [0, 1], guidance_scale, STEPS)
    summary, found = ak.summary(pipe), []
    for video in (0, 1):
        alone = ak.patch(latte(), **settings)
        found.append(generate(alone, [video], guidance_scale, STEPS))
        assert summary.videos[video].computed_steps == ak.summary(alone).computed_steps
    assert close(together, torch.cat(found))
    first, second = summary.videos
    assert first.reused_steps
    assert first.computed_steps != second.computed_steps


def test_two_experts() -> None:
    """Each expert has an engine for each video."""

    def generate(which: list[int]) -> Any:
        pipe = ak.patch(experts(), batch="each", codebook={0.15: 4, 9.0: 2})
        pipe(
            num_inference_steps=STEPS,
            guidance_scale=4.0,
            output_type="latent",
            prompt_embeds=torch.cat([embeds(16, 1 + v) for v in which]),
            negative_prompt_embeds=torch.cat([embeds(16, 11 + v) for v in which]),
            latents=torch.cat([noise(1, 4, 3, 8, 8, seed=v) * (1 + 3 * v) for v in which]),
            num_frames=9,
            height=64,
            width=64,
        )
        return ak.summary(pipe)

    together, alone = generate([0, 1]), [generate([v]) for v in (0, 1)]
    for video, expected in zip(together.videos, alone, strict=True):
        assert video.computed_steps == expected.computed_steps
        assert close_numbers(video.distances, expected.distances)
    assert alone[0].computed_steps != alone[1].computed_steps
    everywhere = set(alone[0].computed_steps) | set(alone[1].computed_steps)
    assert together.computed_steps == sorted(everywhere)


def test_another_number_of_videos() -> None:
    """The number changes between generations, and in one, where stored residuals do not fit."""
    videos = [*two_videos("wan"), Video(TINY["wan"], 20, 0.5)]
    model = each(videos)
    for count in (2, 3, 1, 2):
        run(model, videos[:count])
        fresh = each(videos)
        run(fresh, videos[:count])
        assert schedules(model) == schedules(fresh)
        assert ak.summary(model).cache_bytes == ak.summary(fresh).cache_bytes
    with torch.no_grad():
        for step in range(1, STEPS + 1):
            now = videos[:2] if step <= 5 else videos[1:2]
            output = call(model, now, step)[0]
            if step == 6:
                exact = call(videos[0].tiny.build(), now, step)[0]
                assert close(output, exact)
    assert ak.summary(model).computed_steps[0] == 6


def schedules(model: nn.Module) -> list[list[int]]:
    found = ak.summary(model)
    return [video.computed_steps for video in found.videos or [found]]


def test_an_aborted_run() -> None:
    videos = two_videos("wan")
    model = each(videos)
    run(model, videos)
    expected = schedules(model)
    second_video_fails = model.blocks[0].register_forward_hook(fails_at(calls=4))
    with pytest.raises(RuntimeError, match="aborted"):
        run(model, videos)
    second_video_fails.remove()
    assert ak.summary(model).cache_bytes == 0
    run(model, videos)
    assert schedules(model) == expected


def fails_at(calls: int) -> Any:
    seen: list[int] = []

    def hook(*_: Any) -> None:
        seen.append(0)
        if len(seen) == calls:
            raise RuntimeError("aborted")

    return hook


@dataclass
class TwoOutputs(BaseOutput):
    sample: Tensor
    others: dict[str, Any]


def returning(change: Any, videos: list[Video]) -> nn.Module:
    """Return a patched model whose output goes through `change`."""
    model = videos[0].tiny.build()
    original = model.forward

    def forward(
        hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **kwargs: Any
    ) -> Any:
        return change(original(hidden_states, timestep, encoder_hidden_states, **kwargs)[0])

    model.forward = forward
    options = {"num_inference_steps": STEPS, "guidance_rows": videos[0].guidance}
    return ak.patch(model, batch="each", **options)


def test_supported_outputs() -> None:
    videos = two_videos("wan", guidance=2)
    with torch.no_grad():
        exact = torch.stack([call(each([video]), [video], 1)[0] for video in videos], dim=1)
        exact = exact.flatten(0, 1)
        assert close(call(returning(lambda x: x, videos), videos, 1), exact)
        several = call(returning(lambda x: TwoOutputs(x, {"a": (x + 1,)}), videos), videos, 1)
        assert type(several) is TwoOutputs
        assert close(several.sample, exact)
        assert torch.equal(several.others["a"][0], several.sample + 1)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda x: [x], r"\['list', 'list'\]"),
        (lambda x: (x, None), r"\['NoneType', 'NoneType'\]"),
        (lambda x: x[0], r"\(4, 3, 8, 8\)"),
        (lambda x: x.sum(), r"\[\(\), \(\)\]"),
        (lambda x: x.new_zeros(1, int(1e4 * x.abs().max())), r"\[\(1, "),
    ],
)
def test_outputs_that_cannot_be_joined(change: Any, shown: str) -> None:
    videos = two_videos("wan")
    message = (
        f'batch="each": WanTransformer3DModel returned .*{shown}.*choose batch="any" or "mean"'
    )
    with pytest.raises(ValueError, match=message), torch.no_grad():
        call(returning(change, videos), videos, 1)


def test_arguments_without_the_rows_of_the_batch() -> None:
    videos = two_videos("wan")
    model = each(videos)
    engine = vars(model)["_adacache_installation"].router.engine
    # A model that packs its videos into one sequence reports such numbers.
    engine._adapter = replace(engine._adapter, frames=Frames(lambda *_: (3, 1)))
    with pytest.raises(ValueError, match=r"no argument of Wan.* has the 3 rows .*choose batch="):
        run(model, videos)


def test_nested_arguments_are_split_and_other_shapes_are_not() -> None:
    videos = two_videos("wan")
    given: list[Any] = []
    model = videos[0].tiny.build()

    def forward(
        hidden_states: Tensor, extra: Any, scale: Any, token_indices: Tensor, rope_pos: Any
    ) -> Tensor:
        given.append((extra, scale, token_indices, rope_pos))
        return hidden_states

    model.forward = forward
    ak.patch(model, batch="each", num_inference_steps=STEPS, guidance_rows=1)
    rows, whole = torch.arange(2.0), torch.arange(3.0)
    with torch.no_grad(), pytest.warns(ak.AdaCacheWarning, match="metric block did not run"):
        extra = {"a": [rows, (whole, "text")]}
        positions = {
            "token_indices": torch.arange(2),
            "rope_pos": [torch.zeros(2), torch.zeros(2, 1)],
        }
        model(torch.ones(2, 4, 3, 8, 8), extra, scale=torch.tensor(2.0), **positions)
    for video, (extra, scale, token_indices, rope_pos) in enumerate(given):
        (own, (unsplit, text)) = extra["a"]
        assert own.tolist() == [video]
        assert unsplit is whole
        assert text == "text"
        assert scale.item() == 2.0
        # It has two tokens, not two videos.
        assert token_indices is positions["token_indices"]
        assert [x.shape for x in rope_pos] == [(2,), (1, 1)]


def test_a_model_that_fails_on_a_part_of_its_batch() -> None:
    """The error is its own. A warning gives a possible reason, unless a split has worked before."""
    videos = two_videos("wan")
    model = each(videos)
    block = model.blocks[0]
    fails = block.register_forward_hook(fails_at(calls=1))
    reason = 'rows of one video alone has failed.*choose batch="any" or "mean"'
    warned = pytest.warns(ak.AdaCacheWarning, match=reason)
    with warned, pytest.raises(RuntimeError, match="aborted"):
        run(model, videos)
    fails.remove()
    other = each(videos)
    run(other, videos)
    other.blocks[0].register_forward_hook(fails_at(calls=1))
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match="aborted"):
        warnings.simplefilter("error")
        run(other, videos)


def test_the_summary_has_each_video() -> None:
    videos = two_videos("wan")
    model = each(videos, codebook={0.02: 5, 0.05: 3, math.inf: 2})
    assert not ak.summary(model).videos
    run(model, videos)
    found = ak.summary(model)
    first, second = found.videos
    assert found.cache_bytes == first.cache_bytes + second.cache_bytes
    assert found.cache_tensors == first.cache_tensors + second.cache_tensors
    of_first, of_second = (
        dict(zip(v.computed_steps, v.distances, strict=True)) for v in found.videos
    )
    for step, distance in zip(found.computed_steps, found.distances, strict=True):
        of_step = [of_first.get(step), of_second.get(step)]
        assert distance == max((d for d in of_step if d is not None), default=None)
    assert f"  video 1   {' '.join(map(str, second.computed_steps))}" in str(found)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["videos"][1]["computed_steps"] == second.computed_steps
    assert AdaCacheConfig(**found.config).batch == "each"
    both = merge_experts([found, found])
    assert [len(v.computed_steps) for v in both.videos] == [
        2 * len(v.computed_steps) for v in found.videos
    ]


def test_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a video when the next generation does not have it, and all of it by unpatch."""
    providers: list[ArenaProvider] = []

    def provider(*args: Any) -> ArenaProvider:
        providers.append(ArenaProvider(*args))
        return providers[-1]

    monkeypatch.setattr(sys.modules["adacache_kernels.api.patch"], "ArenaProvider", provider)
    videos = two_videos("wan")
    model = each(videos)
    run(model, videos)
    assert [list(made._users.values()) for made in providers] == [[2]]
    run(model, videos[:1])
    assert [list(made._users.values()) for made in providers] == [[1]]
    ak.unpatch(model)
    assert not providers[0]._made
    assert "forward" not in vars(model)


def test_there_is_no_single_engine() -> None:
    with pytest.raises(ValueError, match=r'batch="each": each video has an engine'):
        attached_engine(each(two_videos("wan")))
