"""An adapter declares all that it reads, and applies only where the model has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from adacache_kernels.engine.residuals.block_stand_ins import StandIns
from adacache_kernels.models import Adapter, BlockRun, Frames, Misfit, Stream, adapter_for
from adacache_kernels.models.adapter_check import fits, missing
from adacache_kernels.models.block_calls import Parameters, shadowed
from adacache_kernels.models.module_names import module_names_for
from tests.models.repository_doubles import AllegroTransformer3DModel
from tests.support.tiny_models.chained_models import IMAGES, VIDEOS
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_models.description import noise
from tests.support.tiny_models.originals import ORIGINALS
from tests.support.tiny_models.special_models import OTHER_IMAGES, OTHER_VIDEOS


class Recorded(dict[str, Any]):
    """A dictionary that records which keys are read as if they had to be there."""

    def __init__(self, values: Any) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)


def models() -> Iterator[tuple[nn.Module, dict[str, Any]]]:
    """Yield a tiny model of each kind with the arguments of a call."""
    for common in TINY.values():
        yield common.build(), {"hidden_states": common.noise()}
    chained = {**VIDEOS, **IMAGES, **OTHER_VIDEOS, **OTHER_IMAGES}
    for tiny in chained.values():
        yield tiny.build(), tiny.inputs(torch.zeros(tiny.latents), 1)
    for double in ORIGINALS.values():
        yield double.build(), double.arguments(noise(*double.latents), torch.ones(2))


@pytest.mark.slow
def test_frames_read_only_what_they_declare() -> None:
    for model, arguments in models():
        adapter, recorded = adapter_for(model), Recorded(arguments)
        assert adapter is not None, type(model)
        adapter.frames(model, recorded)
        assert recorded.read <= set(adapter.frames.arguments), type(model)


class ReadsOf:
    """An observer that records what a residual reads of a run of its block."""

    def __init__(self, residual: Any) -> None:
        self.residual, self.taps = residual, residual.taps
        self.read: dict[str, set[str]] = {}

    def before(self, run: BlockRun) -> None: ...

    def tapped(self, run: BlockRun, name: str) -> None: ...

    def after(self, run: BlockRun) -> None:
        recorded = {
            "arguments": Recorded(run.arguments),
            "tap_outputs": Recorded(run.tap_outputs),
            "parameters": Recorded(run.parameters),
        }
        values: Any = recorded
        self.residual.value(BlockRun(run.block, output=run.output, stream=run.stream, **values))
        self.read = {name: each.read for name, each in recorded.items()}


def gated() -> Iterator[tuple[nn.Module, Any]]:
    """Yield the tiny models whose adapters compute gated residuals, with a call of each."""
    for tiny in TINY.values():
        yield tiny.build(), lambda model, tiny=tiny: tiny.call(model, tiny.noise(), 1)
    for double in ORIGINALS.values():
        yield double.build(), lambda model, d=double: d.call(model, noise(*d.latents), 1)


@pytest.mark.slow
def test_residuals_read_only_what_they_declare() -> None:
    seen = 0
    for model, call in gated():
        adapter = adapter_for(model)
        assert adapter is not None
        for residual in adapter.residuals.values():
            if residual.value is None:
                continue
            blocks = next(b for b in adapter.lists if {b.attribute, b.name} & set(residual.lists))
            stand_ins, watch = StandIns(blocks, blocks.modules(model)), ReadsOf(residual)
            whole = blocks.whole(model)
            whole[blocks.start] = stand_ins.observe(stand_ins.first, (watch,))  # type: ignore[assignment, arg-type]
            with torch.no_grad(), shadowed(model, {blocks.attribute: tuple(whole)}):
                call(model)
            streams = {stream.parameter for stream in blocks.streams}
            assert watch.read["arguments"] <= streams | set(residual.arguments), type(model)
            assert watch.read["tap_outputs"] <= set(residual.taps), type(model)
            assert watch.read["parameters"] <= set(residual.parameters), type(model)
            seen += 1
    assert seen > 15


def allegro() -> tuple[nn.Module, Adapter]:
    model = TINY["allegro"].build()
    adapter = adapter_for(model)
    assert adapter is not None and fits(model, adapter)
    return model, adapter


def test_what_is_missing_is_named() -> None:
    model, adapter = allegro()
    (blocks,) = adapter.lists
    residual = adapter.residuals["s-attn"]
    cases: dict[str, Adapter] = {
        "parameter video of the model's forward": replace(adapter, frames=Frames(max, ("video",))),
        "attribute config.sizes of the model": replace(
            adapter, frames=Frames(max, attributes=("config.sizes",))
        ),
        "block in layers": replace(adapter, lists=(replace(blocks, attribute="layers"),)),
        "parameter img of the forward of transformer_blocks[2]": replace(
            adapter, lists=(replace(blocks, streams=(Stream("img"),)),)
        ),
        "attribute attn9 of transformer_blocks[2]": replace(
            adapter, residuals={"s-attn": replace(residual, taps=("attn9",))}
        ),
        "attribute table of transformer_blocks[2]": replace(
            adapter, residuals={"s-attn": replace(residual, parameters=("table",))}
        ),
        "parameter vec of the forward of transformer_blocks[2]": replace(
            adapter, residuals={"s-attn": replace(residual, arguments=("vec",))}
        ),
    }
    for text, changed in cases.items():
        assert list(missing(model, changed)) == [text]


def test_an_optional_submodule_may_be_missing() -> None:
    model, adapter = allegro()
    for block in model.transformer_blocks:
        del block.attn2
    assert fits(model, adapter)
    for block in model.transformer_blocks:
        del block.ff
    assert not fits(model, adapter) and adapter_for(model) is None


def test_parameters_of_a_wrapper_prove_nothing() -> None:
    class Wrapped(nn.Module):
        def forward(self, *args: Any, **kwargs: Any) -> None: ...

    parameters = Parameters(Wrapped())
    assert parameters.names == set()
    assert parameters.bind((1, 2), {"x": 3}) == {"argument 0": 1, "argument 1": 2, "x": 3}


def test_frames_that_cannot_be_read_name_the_class() -> None:
    model, adapter = allegro()
    with pytest.raises(Misfit, match="of this AllegroTransformer3DModel cannot be read"):
        adapter.frames(model, {"hidden_states": None})


@pytest.mark.parametrize("output", [(), ("text",), torch.ones(1), None])
def test_a_block_that_returns_something_else_is_named(output: Any) -> None:
    with pytest.raises(Misfit, match=r"a block returned .*expected hidden_states"):
        Stream("hidden_states", 0).read(output)
    if not isinstance(output, torch.Tensor):
        with pytest.raises(Misfit, match=r"a block returned .*hidden_states"):
            Stream("hidden_states").read(output)


def test_the_modules_of_a_baseline_belong_to_no_other_class_of_the_name() -> None:
    assert module_names_for(TINY["allegro"].build()) is not None
    assert module_names_for(AllegroTransformer3DModel()) is None
