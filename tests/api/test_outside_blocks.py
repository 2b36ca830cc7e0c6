"""Blocks that run outside of the patched forward: a warning at once, and none in other cases."""

from __future__ import annotations

import copy
import io
import itertools
import logging
import pickle
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.rounding import close
from tests.support.tiny_models.common_models import TINY, denoise
from tests.support.tiny_pipelines.checks import no_user_warning

STEPS = 7
EVERY_THIRD = {float("inf"): 3}
WARNS = "its blocks ran, but the patched forward was not called, so nothing is cached"
WAN = TINY["wan"]


class Block(nn.Module):
    """A block with a submodule, as the detection of block lists expects."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.inner(x))


TIMES = itertools.cycle(range(900, 200, -100))


class Walker(nn.Module):
    """A model whose blocks other code may walk by itself, as DiffSynth-Studio does."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(4))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = x * (1 + 1e-3 * t.view(-1, 1, 1))
        for block in self.blocks:
            x = block(x)
        return x


def latents() -> tuple[Tensor, Tensor]:
    return torch.ones(1, 4, 8), torch.tensor([next(TIMES)])


def walk(model: Any) -> None:
    x, _ = latents()
    for block in model.blocks:
        x = block(x)


def of_the_class(model: Any) -> None:
    type(model).forward(model, *latents())


def patched(build: Callable[[], nn.Module] = Walker, **settings: Any) -> nn.Module:
    settings = {"codebook": EVERY_THIRD, "num_inference_steps": STEPS} | settings
    return ak.patch(build().eval(), **settings)


@pytest.mark.parametrize("run", [walk, of_the_class])
@pytest.mark.parametrize("settings", [{}, {"blocks": "blocks"}])
def test_the_warning_comes_at_the_first_block_and_once(
    run: Callable[[Any], None], settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = patched(**settings)
    with torch.no_grad(), pytest.warns(ak.AdaCacheWarning, match=WARNS) as warned:
        for _ in range(STEPS):
            run(model)
    assert len(warned) == len(caplog.records) == 1
    assert warned[0].filename == __file__
    summary = ak.summary(model)
    assert len(summary.reasons) == 1 and WARNS in str(summary)
    with torch.no_grad():
        for _ in range(STEPS):
            model(*latents())
    assert ak.summary(model).reused_steps and not ak.summary(model).reasons, "the advice helps"


def test_a_forward_that_was_taken_before_the_patch() -> None:
    model = WAN.build()
    kept = model.forward
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    with torch.no_grad(), pytest.warns(ak.AdaCacheWarning, match=WARNS):
        kept(WAN.noise(), torch.tensor([900]), WAN.text())


def test_the_forward_of_another_library_is_said_at_once_and_by_the_summary() -> None:
    model = WAN.build()
    theirs = model.forward
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    model.forward = theirs
    with pytest.warns(ak.AdaCacheWarning, match=WARNS):
        denoise(WAN, model, 1)
    with pytest.warns(ak.AdaCacheWarning, match=r"unpatch\(\) and patch\(\) it again"):
        ak.summary(model)
    ak.patch(ak.unpatch(model), codebook=EVERY_THIRD, num_inference_steps=STEPS)
    with no_user_warning():
        denoise(WAN, model, STEPS)
    assert ak.summary(model).reused_steps


@pytest.mark.parametrize("name", ["latte", "cogvideox", "wan"])
def test_each_block_list_is_watched(name: str) -> None:
    for index, attribute in enumerate(TINY[name].lists):
        model = patched(TINY[name].build)
        handle = getattr(model, attribute)[0].register_forward_pre_hook(stop)
        with torch.no_grad(), pytest.raises(Stopped), pytest.warns(ak.AdaCacheWarning, match=WARNS):
            getattr(model, attribute)[0](torch.ones(1))
        handle.remove()
        assert index < 2


class Stopped(Exception):
    pass


def stop(*_: Any) -> None:
    raise Stopped


@pytest.mark.parametrize("name", list(TINY))
def test_calls_of_the_model_give_no_warning(name: str) -> None:
    with no_user_warning():
        model = patched(TINY[name].build)
        denoise(TINY[name], model, STEPS)
        ak.summary(model)
        denoise(TINY[name], ak.unpatch(model), 1)
    assert not any(block._forward_pre_hooks for block in model.modules())


def test_the_probe_and_the_engine_after_it_give_no_warning() -> None:
    model = patched()
    with torch.no_grad(), no_user_warning():
        for _ in range(STEPS):
            model(*latents())
    assert ak.summary(model).reused_steps


def test_blocks_that_another_patched_model_runs_give_no_warning() -> None:
    model = patched()
    other = Walker().eval()
    other.blocks = model.blocks
    ak.patch(other, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    with torch.no_grad(), no_user_warning():
        other(*latents())
        model(*latents())


def test_a_checkpointed_backward_pass_gives_no_warning() -> None:
    """It runs the blocks again, after the forward has ended."""
    model = WAN.build()
    model.enable_gradient_checkpointing()
    ak.patch(model.train(), codebook=EVERY_THIRD, num_inference_steps=STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ak.AdaCacheWarning)
        warnings.filterwarnings("ignore", ".*training mode", ak.AdaCacheWarning)
        WAN.call(model, WAN.noise(), 1).square().mean().backward()
    assert model.blocks[0].attn1.to_q.weight.grad is not None


def test_compiled_blocks_are_traced_whole_and_give_no_warning() -> None:
    plain, model = denoise(WAN, WAN.build(), STEPS), patched(WAN.build, codebook={1.0: 1})
    for block in model.blocks:
        block.compile(backend="eager", fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ak.AdaCacheWarning)
        warnings.filterwarnings("ignore", ".*is compiled", ak.AdaCacheWarning)
        assert close(denoise(WAN, model, STEPS), plain)


def offload(model: Any) -> None:
    from diffusers.hooks import apply_group_offloading

    device = torch.device("cpu")
    apply_group_offloading(
        model, device, device, offload_type="block_level", num_blocks_per_group=1
    )


def dispatch(model: Any) -> None:
    from accelerate import dispatch_model

    dispatch_model(model, device_map={"": "cpu"}, force_hooks=True)


@pytest.mark.parametrize("add", [offload, dispatch])
def test_hooks_of_other_libraries_change_nothing(add: Callable[[Any], None]) -> None:
    model = patched(WAN.build)
    add(model)
    with no_user_warning():
        denoise(WAN, model, STEPS)
    kept = model.blocks[0]
    with torch.no_grad(), ExitStack() as stack:
        stack.enter_context(pytest.warns(ak.AdaCacheWarning, match=WARNS))
        stack.enter_context(pytest.raises(Exception))
        kept()
    ak.unpatch(model)
    assert not any(block._forward_pre_hooks for block in model.blocks)


def copied(model: nn.Module) -> Any:
    return copy.deepcopy(model)


def pickled(model: nn.Module) -> Any:
    data = pickle.dumps(model)
    assert b"adacache_kernels" not in data, "it can be read without this package"
    return pickle.loads(data)


def saved(model: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("way", [copied, pickled, saved])
def test_a_copy_gives_no_warning(way: Callable[[nn.Module], Any]) -> None:
    model = patched()
    copied = way(model)
    with torch.no_grad(), no_user_warning():
        walk(copied)
    hooks = [hook for block in copied.blocks for hook in block._forward_pre_hooks.values()]
    assert all(hook is logging.NullHandler.handle for hook in hooks)
    with torch.no_grad(), pytest.warns(ak.AdaCacheWarning, match=WARNS):
        walk(model)
