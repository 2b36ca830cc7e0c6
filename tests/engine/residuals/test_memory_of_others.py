"""Reused steps write into no tensor that the model, a hook, another call or the caller may hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.api.target import attached_engine
from adacache_kernels.memory import plan, storage_choice
from tests.models.unknown_models import Model, TextBlock
from tests.support.graph_closures import Closures
from tests.support.held_tensors import held_tensors
from tests.support.tiny_models.chained_models import IMAGES, VIDEOS
from tests.support.tiny_models.common_models import TINY, denoise
from tests.support.tiny_models.description import noise
from tests.support.tiny_models.special_models import OTHER_IMAGES, OTHER_VIDEOS
from tests.support.tiny_models.tiny_class import denoise as denoise_class
from tests.support.tiny_pipelines.all_pipelines import PIPELINES

STEPS = 8
EVERY_THIRD = {float("inf"): 3}
SETTINGS: dict[str, dict[str, Any]] = {
    "int8": {"cache_dtype": "int8"},
    "fp8": {"cache_dtype": "fp8"},
    "in host memory": {},
    "forecast of two terms, corrected": {"forecast": 1, "correct": True},
    "corrected, in host memory": {"forecast": 2, "correct": True},
    "each video": {"batch": "each"},
    "each branch": {"decide_for": "branch"},
}
BASELINES: dict[str, ak.baselines.BaselineConfig] = {
    "interval": ak.baselines.FixedIntervalConfig(interval=3),
    "first block": ak.baselines.FirstBlockCacheConfig(threshold=9.0),
    "timestep": ak.baselines.TeaCacheConfig(threshold=9.0, watched="timestep"),
    "input": ak.baselines.TeaCacheConfig(threshold=9.0, watched="input"),
    "per layer": ak.baselines.AdaCachePerLayerConfig(codebook={9.0: 3}),
    "PAB": ak.baselines.PABConfig(spatial=2, window=(0, 1000)),
    "TaylorSeer": ak.baselines.TaylorSeerConfig(interval=3, order=2),
}
OTHERS = {**VIDEOS, **OTHER_VIDEOS, **IMAGES, **OTHER_IMAGES}
WITHOUT_PIPELINE = sorted({*OTHERS} - {tiny.model for tiny in PIPELINES.values()})


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat host memory as separate, as on a GPU, in chunks of one or two tokens; run graphs."""
    monkeypatch.setattr(storage_choice, "has_host_memory", lambda device: True)
    monkeypatch.setattr(plan, "CHUNK_BYTES", 600)
    monkeypatch.setattr(
        "adacache_kernels.engine.decision.step_graphs.make_capture", lambda device: Closures()
    )


def check_nothing_is_written(
    model: nn.Module, patch: Callable[[nn.Module], Any], run: Callable[[], object]
) -> None:
    """Check that a patched run writes into no tensor into which the model itself does not write."""
    with held_tensors([model]) as plain:
        run()
    patch(model)
    with held_tensors([model]) as held:
        run()
    assert ak.summary(model).reused_steps
    assert held.written() <= plain.written()


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("settings", SETTINGS)
def test_no_tensor_that_a_hook_holds_is_written(name: str, settings: str) -> None:
    def patch(model: nn.Module) -> None:
        options = {"codebook": EVERY_THIRD, "num_inference_steps": STEPS, **SETTINGS[settings]}
        ak.patch(model, **options)
        if "host" in settings:
            store = attached_engine(model)._memory
            store._choice = replace(store._choice, preferred=plan.Storage(on_host=True))

    tiny = TINY[name]
    model = tiny.build()
    check_nothing_is_written(model, patch, lambda: denoise(tiny, model, STEPS, batch=2))
    summary = ak.summary(model)
    assert ("in host memory" in summary.memory.storage) == ("host" in settings)
    assert bool(summary.corrected) == ("corrected" in settings)


@pytest.mark.parametrize("name", ["latte", "wan", "cogvideox"])
@pytest.mark.parametrize("method", BASELINES)
def test_baselines_write_into_no_tensor_that_a_hook_holds(name: str, method: str) -> None:
    tiny = TINY[name]
    model, config = tiny.build(), BASELINES[method]
    if name == "cogvideox" and isinstance(config, ak.baselines.TeaCacheConfig):
        config = replace(config, threshold=99.0)

    def patch(model: nn.Module) -> None:
        ak.patch(model, config, num_inference_steps=STEPS)

    check_nothing_is_written(model, patch, lambda: denoise(tiny, model, STEPS))


@pytest.mark.parametrize("name", WITHOUT_PIPELINE)
def test_models_that_no_pipeline_tests(name: str) -> None:
    def patch(model: nn.Module) -> None:
        ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)

    tiny = OTHERS[name]
    model = tiny.build()
    check_nothing_is_written(model, patch, lambda: denoise_class(tiny, model, STEPS))


class Remembering(Model):
    """A model that may keep what enters its blocks; a subclass says what.

    Args:
        keeps: False makes the same model, which makes the tensor anew for each call.
    """

    def __init__(self, keeps: bool) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.keeps = keeps
        self.kept: dict[int, tuple[Any, Tensor]] = {}

    def remember(self, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """Return the tensor that was made for this key, in this call or in an earlier one."""
        if id(key) not in self.kept or not self.keeps:
            self.kept[id(key)] = key, make()
        return self.kept[id(key)][1]


class KeepsText(Remembering):
    """A model that projects the text once for all steps."""

    def __init__(self, keeps: bool) -> None:
        super().__init__(keeps)
        self.layers = nn.ModuleList(TextBlock() for _ in range(4))

    def forward(self, x: Tensor, y: Tensor, timestep: Tensor) -> Tensor:
        x, y = self.embed(x), self.remember(y, lambda: self.embed(y))
        for layer in self.layers:
            x, y = layer(x, y, timestep / 1000)
        return self.head(x + y.mean())


class SharesEmbedding(Remembering):
    """A model that embeds the latents once for both guidance branches."""

    def forward(self, x: Tensor, y: Tensor, timestep: Tensor) -> Tensor:
        x = self.remember(x, lambda: self.embed(x))
        return self.head(self.run(x, y.mean() * timestep / 1000))


class AddsEmbeddingAgain(Remembering):
    """A model that adds its embedding to what leaves the blocks."""

    def forward(self, x: Tensor, y: Tensor, timestep: Tensor) -> Tensor:
        embedded = self.embed(x)
        entering = embedded if self.keeps else embedded.clone()
        return self.head(self.run(entering, y.mean() * timestep / 1000) + embedded)


class BeginsWithParameter(Remembering):
    """A model whose stream begins as a view of a parameter."""

    def __init__(self, keeps: bool) -> None:
        super().__init__(keeps)
        self.queries = nn.Parameter(noise(1, 8, 8))

    def forward(self, x: Tensor, y: Tensor, timestep: Tensor) -> Tensor:
        queries = self.queries[:, : x.shape[1]]
        time = self.embed(x).mean() * timestep / 1000
        return self.head(self.run(queries if self.keeps else queries.clone(), time))


class WritesIntoBuffer(Remembering):
    """A model that embeds into the same memory in each call, for all branches and steps."""

    def forward(self, x: Tensor, y: Tensor, timestep: Tensor) -> Tensor:
        _, buffer = self.kept.setdefault(0, (None, torch.zeros(1, 6, 8)))
        buffer += 0.5 * self.embed(x)
        return self.head(self.run(buffer if self.keeps else buffer.clone(), timestep / 1000))


def latents_of(model: Remembering, inference: bool = False, **settings: Any) -> Tensor:
    """Return the latents after a generation with two guidance branches."""
    options = {"codebook": EVERY_THIRD, "num_inference_steps": STEPS, "calls_per_step": 2}
    ak.patch(model.eval(), **{**options, **settings})
    x, texts = noise(1, 6, 4), [noise(1, 6, 4, seed=seed) for seed in (1, 2)]
    with torch.inference_mode(inference), torch.no_grad():
        for step in range(1, STEPS + 1):
            timestep = torch.full((1,), 930.0 - 30 * step)
            cond, uncond = (model(x, text, timestep) for text in texts)
            x = x - 0.05 * (cond + 2 * (cond - uncond))
    assert ak.summary(model).reused_steps
    return x


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    "kind", [KeepsText, SharesEmbedding, AddsEmbeddingAgain, BeginsWithParameter, WritesIntoBuffer]
)
def test_what_a_model_keeps_stays(kind: type[Remembering], inference: bool) -> None:
    """The result is that of the same model that keeps nothing, bit for bit."""
    assert torch.equal(latents_of(kind(True), inference), latents_of(kind(False), inference))


@pytest.mark.parametrize("kind", [AddsEmbeddingAgain, BeginsWithParameter])
def test_what_a_model_keeps_stays_in_graphs(kind: type[Remembering]) -> None:
    found, expected = (latents_of(kind(keeps), decision="graph") for keeps in (True, False))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", TINY)
def test_graphs_do_not_write_into_what_the_caller_holds(name: str) -> None:
    """Hooks inside of the model hold memory of the graph, which each launch overwrites."""
    tiny = TINY[name]
    model = tiny.build()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS, decision="graph")
    with held_tensors([model], whole=True) as held:
        denoise(tiny, model, STEPS)
    assert ak.summary(model).reused_steps
    assert not held.written()


def test_a_reused_step_returns_contiguous_streams() -> None:
    """An embedding may be a transposed view, on which the layers after the blocks are slow."""
    seen: list[bool] = []
    model = SharesEmbedding(keeps=True)
    model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous()))
    model.embed = nn.Sequential(model.embed, Transposed())
    latents_of(model)
    reused = [step for step in ak.summary(model).reused_steps for _ in range(2)]
    contiguous = [1 + index // 2 for index, is_contiguous in enumerate(seen) if is_contiguous]
    assert contiguous == reused


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mT.contiguous().mT
