"""Test that reused steps of all pipelines write into no tensor that a hook may hold."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import adacache_kernels as ak
from tests.support.held_tensors import held_tensors
from tests.support.tiny_pipelines.all_pipelines import PIPELINES
from tests.support.tiny_pipelines.checks import EVERY_THIRD
from tests.support.tiny_pipelines.pipeline import TinyPipeline


def transformers(pipe: Any) -> list[nn.Module]:
    found = [getattr(pipe, name, None) for name in ("transformer", "transformer_2")]
    return [model for model in found if model is not None]


def written_unpatched(tiny: TinyPipeline) -> set[str]:
    pipe = tiny.build()
    with held_tensors(transformers(pipe)) as held:
        tiny.run(pipe)
    return held.written()


@pytest.mark.parametrize("name", PIPELINES)
def test_a_reused_step_writes_into_no_tensor_of_the_model(name: str) -> None:
    """The model itself, its pipeline or scheduler may write: such tensors are found unpatched."""
    tiny = PIPELINES[name]
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)
    with held_tensors(transformers(pipe)) as held:
        tiny.run(pipe)
    assert ak.summary(pipe).reused_steps
    written = held.written()
    assert not written or written <= written_unpatched(tiny)
