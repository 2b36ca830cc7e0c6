"""Every pipeline with a tiny transformer: exactness, reuse, branches, steps, several runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.models import adapter_for
from tests.support.oracles.pipeline_residual import kept_blocks
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.rounding import close
from tests.support.tiny_pipelines.all_pipelines import PIPELINES, STEPS, TinyPipeline

ALL = pytest.mark.parametrize("name", PIPELINES)
ALWAYS = {float("inf"): 1}
EVERY_THIRD = {float("inf"): 3}
COMPUTED, REUSED = [1, 2, 5, 6], [3, 4]
# Of each way of guidance one: to make a run anew for each pipeline takes too long.
COMPARED = {
    "latte",
    "cogvideox",
    "wan 2.2",
    "skyreels, diffusion forcing",
    "hunyuan, true guidance",
    "kandinsky5",
    "sd3, skipped layers",
    "hunyuan15, skipped layers",
    "ltx2",
    "framepack",
    "z-image",
}


def transformers(pipe: Any) -> list[nn.Module]:
    found = [getattr(pipe, name, None) for name in ("transformer", "transformer_2")]
    return [model for model in found if model is not None]


def steps_made(pipe: Any) -> list[int]:
    summary = ak.summary(pipe)
    assert summary.num_steps == STEPS
    return sorted([*summary.computed_steps, *summary.reused_steps])


def fresh(tiny: TinyPipeline, **kwargs: Any) -> Tensor:
    """As made by a pipeline that has made nothing before."""
    return tiny.run(ak.patch(tiny.build(), codebook=EVERY_THIRD), **kwargs)


@ALL
def test_rate_1_is_bit_equal_and_unpatch_gives_the_pipeline_back(name: str) -> None:
    tiny = PIPELINES[name]
    pipe = tiny.build()
    plain = tiny.run(pipe)
    before = [set(vars(part)) for part in (pipe.scheduler, *transformers(pipe))]
    ak.patch(pipe, codebook=ALWAYS)
    assert torch.equal(tiny.run(pipe), plain)
    assert ak.summary(pipe).computed_steps == steps_made(pipe) == list(range(1, STEPS + 1))
    ak.unpatch(pipe)
    assert [set(vars(part)) for part in (pipe.scheduler, *transformers(pipe))] == before


@ALL
def test_reuse_is_that_of_a_residual_a_block_and_call(name: str) -> None:
    """Within 3e-6: float32 sums in another order, over 6 steps of guidance by up to 7.5."""
    tiny = PIPELINES[name]
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)
    ways = zip((True, False), tiny.branches, strict=True)
    for guidance, branches in ways if tiny.branches[0] != tiny.branches[1] else [*ways][:1]:
        found = tiny.run(pipe, guidance=guidance)
        summary = ak.summary(pipe)
        assert list(summary.branches) == branches
        assert steps_made(pipe) == list(range(1, STEPS + 1))
        if len(transformers(pipe)) == 1:
            assert (summary.computed_steps, summary.reused_steps) == (COMPUTED, REUSED)
        assert summary.recomputed == tiny.recomputed
        ak.unpatch(pipe)
        plain = tiny.run(pipe, guidance=guidance)
        with kept_blocks(transformers(pipe), STEPS, summary.computed_steps):
            expected = tiny.run(pipe, guidance=guidance)
        assert relative(found, expected) < 3e-6 < 3e-5 < relative(found, plain)
        ak.patch(pipe, codebook=EVERY_THIRD)


class Stopped(Exception):
    """The user's."""


def stop_at_a_step(tiny: TinyPipeline, pipe: Any) -> None:
    def stop(_pipe: Any, step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 2:
            raise Stopped
        return values

    assert tiny.aborts is not None
    with pytest.raises(Stopped):
        tiny.run(pipe, **{tiny.aborts: stop})


def stop_in_a_block(tiny: TinyPipeline, pipe: Any) -> None:
    """In the third step whose blocks run."""
    calls = [0]

    def stop(_block: nn.Module, _args: Any) -> None:
        calls[0] += 1
        if calls[0] > 2 * len(tiny.branches[0]):
            raise Stopped

    first = adapter_for(pipe.transformer).lists[0]
    block = next(iter(first.modules(pipe.transformer).values()))
    handle = block.register_forward_pre_hook(stop)
    with pytest.raises(Stopped):
        tiny.run(pipe)
    handle.remove()


@ALL
def test_runs_one_after_another(name: str) -> None:
    """Again, after one that was broken off, at another size, without guidance, with it again."""
    tiny = PIPELINES[name]
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)
    whole = tiny.run(pipe)
    assert torch.equal(tiny.run(pipe), whole)
    (stop_in_a_block if tiny.aborts is None else stop_at_a_step)(tiny, pipe)
    assert torch.equal(tiny.run(pipe), whole)
    for change in ({"other": True}, {"guidance": False}):
        found = tiny.run(pipe, **change)
        assert steps_made(pipe) == list(range(1, STEPS + 1))
        if name in COMPARED:
            assert close(found, fresh(tiny, **change))
    assert torch.equal(tiny.run(pipe), whole)
    assert list(ak.summary(pipe).branches) == tiny.branches[0]
