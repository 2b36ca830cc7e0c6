"""The original repositories' models, known by their structure: exactness, reuse, residuals."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.models import adapter_for
from adacache_kernels.models.originals import STRUCTURES
from oracle import relative
from originals import FRAMES, ORIGINALS, TOKENS, AuthorsBlock, Original, STDiT3, noise

STEPS = 10
NAMES = pytest.mark.parametrize("name", ORIGINALS)
VIDEO_SCHEDULE = {float("inf"): 3}

STRUCTURE = {
    "STDiT3, AdaCache": "2x3 t-attn s-attn ca-mlp block: spatial_blocks(x) -> temporal_blocks(x)",
    "STDiT3, first frame given": "2x3 t-attn s-attn ca-mlp block: spatial_blocks(x) -> "
    "temporal_blocks(x)",
    "STDiT3, VideoSys": "2x3 t-attn s-attn ca-mlp block: spatial_blocks(x) -> temporal_blocks(x)",
    "Open-Sora 2": "2x1 block: double_blocks(img, txt) -> single_blocks(x)",
    "Open-Sora-Plan 1.1": "2x3 t-attn s-attn ca-mlp block: transformer_blocks(hidden_states) -> "
    "temporal_transformer_blocks(hidden_states)",
    "Open-Sora-Plan 1.2": "2x3 s-attn block: transformer_blocks(hidden_states)",
    "Open-Sora-Plan 1.3": "2x3 s-attn block: transformer_blocks(hidden_states)",
    "Latte": "2x3 t-attn s-attn ca-mlp block: blocks[0::2](x) -> blocks[1::2](x)",
}


@NAMES
def test_structure(name: str) -> None:
    double = ORIGINALS[name]
    model = double.build()
    adapter = adapter_for(model)
    batch, frames = adapter.frames(model, double.arguments(noise(*double.latents), torch.ones(2)))
    lists = [
        f"{blocks.name}({', '.join(stream.parameter for stream in blocks.streams)})"
        for blocks in adapter.lists
    ]
    found = f"{batch}x{frames} {' '.join(adapter.residuals)}: {' -> '.join(lists)}"
    assert found == STRUCTURE[name]
    assert sum(structure.fits(model) for structure in STRUCTURES) == 1


@NAMES
def test_rate_1_is_bit_equal_and_unpatch_gives_the_model_back(name: str) -> None:
    double = ORIGINALS[name]
    model = double.build()
    plain, before = double.denoise(model, STEPS), dict(vars(model))
    ak.patch(model, codebook={1.0: 1}, num_inference_steps=STEPS)
    assert all(map(torch.equal, plain, double.denoise(model, STEPS)))
    assert all(distance is not None for distance in ak.summary(model).distances[1:])
    ak.unpatch(model)
    assert vars(model) == before
    assert all(map(torch.equal, plain, double.denoise(model, STEPS)))


@NAMES
def test_reuse_on_equal_input_repeats_the_output(name: str) -> None:
    """As in test_engine.py: two roundings of the stream, and a gain below 16 behind it."""
    double = ORIGINALS[name]
    model = double.build()
    ak.patch(model, codebook=VIDEO_SCHEDULE, num_inference_steps=STEPS)
    with torch.no_grad():
        outputs = [double.call(model, torch.ones(double.latents), 1) for _ in range(STEPS)]
    assert ak.summary(model).reused_steps
    scale = outputs[1].abs().max()
    assert all((o - outputs[1]).abs().max() <= 32 * torch.finfo().eps * scale for o in outputs)


class Kept:
    """A block's forward that keeps what it added to each stream, and adds that where told to."""

    def __init__(
        self, block: nn.Module, streams: tuple[str, ...], computes: Callable[[], bool]
    ) -> None:
        self.original, self.streams, self.computes = block.forward, streams, computes
        self.signature = inspect.signature(block.forward)
        self.added: list[Tensor] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self.signature.bind(*args, **kwargs).arguments
        inputs = [bound[name] for name in self.streams]
        passed = (bound["ada_dict"],) if "ada_dict" in bound else ()
        if self.computes():
            output = self.original(*args, **kwargs)
            outputs = output if isinstance(output, tuple) else (output,)
            self.added = [o - x for o, x in zip(outputs, inputs, strict=False)]
            return output
        outputs = tuple(x + r for x, r in zip(inputs, self.added, strict=True)) + passed
        return outputs if len(outputs) > 1 else outputs[0]


@contextmanager
def kept(double: Original, model: nn.Module, computes: Callable[[], bool]) -> Iterator[None]:
    blocks = [
        (block, streams)
        for name, streams in double.streams.items()
        for block in getattr(model, name)
    ]
    for block, streams in blocks:
        block.forward = Kept(block, streams, computes)
    try:
        yield
    finally:
        for block, _ in blocks:
            del block.forward


@NAMES
def test_reuse_is_that_of_a_residual_a_block(name: str) -> None:
    """Within 1e-5: float32 sums in another order, over 10 steps."""
    double = ORIGINALS[name]
    model = double.build()
    plain = double.denoise(model, STEPS)
    ak.patch(model, codebook=VIDEO_SCHEDULE, num_inference_steps=STEPS)
    found, computed = double.denoise(model, STEPS), ak.summary(model).computed_steps
    ak.unpatch(model)
    now, expected = [0], []
    with kept(double, model, lambda: now[0] in computed), torch.no_grad():
        latents = noise(*double.latents)
        for step in range(1, STEPS + 1):
            now[0] = step
            latents = latents - 0.05 * double.call(model, latents, step)
            expected.append(latents)
    assert len(computed) < STEPS - 2
    assert all(relative(a, b) < 1e-5 for a, b in zip(found, expected, strict=True))
    assert relative(found[-1], plain[-1]) > 1e-4


@NAMES
@pytest.mark.parametrize("settings", [{"config": "forecast"}, {"cache_dtype": "int8"}])
def test_presets(name: str, settings: dict[str, Any]) -> None:
    double = ORIGINALS[name]
    model = double.build()
    ak.patch(model, codebook={1e9: 3}, num_inference_steps=STEPS, **settings)
    assert torch.isfinite(double.denoise(model, STEPS)[-1]).all()
    assert ak.summary(model).reused_steps


def attention_residuals(block: Any, arguments: dict[str, Any]) -> dict[str, Tensor]:
    """What an STDiT3 block adds by its attention, and by the rest, from its own modules."""
    x, taps = arguments["x"], {}
    handles = [
        module.register_forward_hook(
            lambda _m, _a, output, name=name: taps.__setitem__(name, output)
        )
        for name, module in (("cross", block.cross_attn), ("mlp", block.mlp))
    ]
    inside: list[Tensor] = []
    handles.append(
        block.cross_attn.register_forward_pre_hook(lambda _m, args: inside.append(args[0]))
    )
    output = block(**arguments)[0]
    for handle in handles:
        handle.remove()
    return {"attention": inside[0] - x, "rest": output - inside[0]}


class Official:
    """The authors' schedule, in their own order of operations: a plain loop on the host.

    A residual's distance to the one before, over the rate in force; averaged over the blocks that
    measure; times score and gradient of its motion; looked up among five thresholds. Steps 1, N - 1
    and N are computed whatever was decided.
    """

    def __init__(self, codebook: dict[float, int], moreg: dict[str, Any] | None) -> None:
        self.thresholds, self.rates = list(codebook), list(codebook.values())
        self.moreg = moreg
        self.previous_scores: dict[str, float] = {}
        self.stored: dict[str, Tensor] = {}
        self.rate, self.next_step = 1, 1
        self.computed: list[int] = []
        self.is_computing = False
        self.distances: list[float] = []

    def computes(self, step: int) -> bool:
        return step == self.next_step or step in (1, STEPS_30 - 1, STEPS_30)

    def step(self, step: int, residuals: dict[str, Tensor]) -> None:
        self.computed.append(step)
        count, average, rate = 0, 0.0, self.rate
        for name, residual in residuals.items():
            if name not in self.stored:
                continue
            before = self.stored[name]
            distance = float((before - residual).abs().sum() / before.abs().sum()) / self.rate
            average = (distance + count * average) / (count + 1)
            count += 1
            rate = self._rate(step, average, name, residual)
        self.stored = dict(residuals)
        self.rate, self.next_step = rate, step + rate

    def _rate(self, step: int, distance: float, name: str, residual: Tensor) -> int:
        if self.moreg is not None:
            a, b, d = self.moreg["hyp"]
            score = 1.0
            first, last = self.moreg["steps"]
            if first <= step <= last:
                later, earlier = residual[:, TOKENS:], residual[:, :-TOKENS]
                size = later.abs().sum() + earlier.abs().sum()
                score = float((later - earlier).abs().sum() / size / a) ** b / d
            before = self.previous_scores.get(name, 1.0)
            gradient = self.moreg["mul"] * (score - before) / self.rate
            self.previous_scores[name] = score
            distance *= score + abs(gradient)
        self.distances.append(distance)
        for threshold, rate in zip(self.thresholds[:5], self.rates, strict=False):
            if distance < threshold:
                return rate
        return self.rates[-1]


STEPS_30 = 30
MOREG = {"hyp": (0.6, 2.0, 1.0), "steps": (4, 26), "mul": 10.0}
CODEBOOKS = [
    {0.02: 6, 0.03: 5, 0.045: 4, 0.07: 3, 0.11: 2, 1.0: 1},
    {0.03: 4, 0.05: 3, 0.08: 2, 0.2: 2, 0.3: 2, 1.0: 1},
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("moreg", [None, MOREG], ids=["plain", "MoReg"])
@pytest.mark.parametrize("which", ["t-attn", "s-attn", "ca-mlp"])
@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_the_schedule_is_the_authors(
    codebook: dict[float, int], which: str, moreg: dict[str, Any] | None, seed: int
) -> None:
    """Step for step, distances within 1e-4: sums of float32 in another order."""
    double = ORIGINALS["STDiT3, AdaCache"]
    model = double.build()
    settings: dict[str, Any] = {}
    if moreg is not None:
        settings = {
            "apply_moreg": True,
            "moreg_hyp": moreg["hyp"],
            "moreg_steps": moreg["steps"],
            "mograd_mul": moreg["mul"],
        }
    ak.patch(
        model,
        codebook=codebook,
        cache_res=which,
        cache_loc=1,
        num_inference_steps=STEPS_30,
        **settings,
    )
    found = double.denoise(model, STEPS_30, seed)
    summary = ak.summary(model)
    ak.unpatch(model)
    official, expected = official_run(double, model, which, codebook, moreg, seed)
    assert summary.computed_steps == official.computed
    measured = [distance for distance in summary.distances if distance is not None]
    last = {"t-attn": 1, "s-attn": 1, "ca-mlp": 2}[which]
    assert torch.allclose(
        torch.tensor(measured[:-2]),
        torch.tensor(official.distances[last - 1 :: last][:-2]),
        rtol=1e-4,
    )
    assert relative(found[-1], expected) < 1e-5


def official_run(
    double: Original,
    model: nn.Module,
    which: str,
    codebook: dict[float, int],
    moreg: dict[str, Any] | None,
    seed: int,
) -> tuple[Official, Tensor]:
    """The authors' loop on an unpatched model: two residuals a block, refreshed together."""
    official = Official(codebook, moreg)
    residuals: dict[str, Tensor] = {}
    stored: dict[int, dict[str, Tensor]] = {}
    lists = {"t-attn": ("temporal_blocks",), "s-attn": ("spatial_blocks",)}
    measured = lists.get(which, ("spatial_blocks", "temporal_blocks"))

    def forward_of(block: Any, name: str, index: int) -> Callable[..., Any]:
        original, names = block.forward, list(inspect.signature(block.forward).parameters)

        def forward(*args: Any, **kwargs: Any) -> Any:
            bound = dict(zip(names, args, strict=False)) | kwargs
            if official.is_computing:
                block.forward = original
                found = attention_residuals(block, bound)
                block.forward = forward
                stored[id(block)] = found
                if name in measured and index == 1:
                    residuals[name] = found["rest" if which == "ca-mlp" else "attention"]
            found = stored[id(block)]
            return bound["x"] + found["attention"] + found["rest"], bound["ada_dict"]

        return forward

    for name in double.streams:
        for index, block in enumerate(getattr(model, name)):
            block.forward = forward_of(block, name, index)
    latents = noise(*double.latents, seed=seed)
    with torch.no_grad():
        for step in range(1, STEPS_30 + 1):
            official.is_computing = official.computes(step)
            residuals.clear()
            latents = latents - 0.05 * double.call(model, latents, step)
            if official.is_computing:
                official.step(step, residuals)
    for name in double.streams:
        for block in getattr(model, name):
            del block.forward
    return official, latents


def test_images_beside_the_video_are_computed() -> None:
    double = ORIGINALS["Open-Sora-Plan 1.1"]
    model = double.build()
    ak.patch(model, codebook=VIDEO_SCHEDULE, num_inference_steps=STEPS)
    arguments = double.arguments(noise(*double.latents), torch.ones(2))
    with (
        pytest.warns(ak.AdaCacheWarning, match="use_image_num came with the call"),
        torch.no_grad(),
    ):
        for _ in range(4):
            model(**arguments, use_image_num=1)
    assert not ak.summary(model).reused_steps


def test_the_sampling_method_of_latte_goes_through_the_patch() -> None:
    double = ORIGINALS["Latte"]
    model = double.build()
    ak.patch(model, codebook=VIDEO_SCHEDULE, num_inference_steps=STEPS)
    with torch.no_grad():
        for step in range(STEPS):
            model.forward_with_cfg(noise(*double.latents), torch.full((2,), 900 - step))
    assert ak.summary(model).reused_steps


def test_names_of_lists_alone_do_not_make_a_structure() -> None:
    model = STDiT3(AuthorsBlock)
    assert "Open-Sora 1.2 with AdaCache" in str(adapter_for(model))
    model.temporal_blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert adapter_for(model) is None


def test_motion_of_a_known_residual() -> None:
    """Frames are told apart right: a residual that is the same in every frame has no motion."""
    double = ORIGINALS["Open-Sora-Plan 1.3"]
    model = double.build()
    adapter = adapter_for(model)
    batch, frames = adapter.frames(model, double.arguments(noise(*double.latents), torch.ones(2)))
    x = torch.arange(2 * FRAMES * TOKENS * 4.0).view(FRAMES * TOKENS, 2, 4)
    found = adapter.lists[0].split(x, 0, (batch, frames))
    assert found.shape == (2, FRAMES, TOKENS, 4)
    assert torch.equal(found[1, 2, 5], x[2 * TOKENS + 5, 1])
