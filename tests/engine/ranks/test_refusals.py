"""Models that cannot be cached on several ranks or devices: the message says why and what to do."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.engine.ranks.shard import shard_of
from adacache_kernels.models.other_libraries.rank_groups import Cut, RankGroup
from tests.models.unknown_models import REUSING, Model, run
from tests.support.fake_world import fake_world
from tests.support.rounding import close
from tests.support.tiny_models.common_models import TINY, denoise

WAN = TINY["wan"]
STEPS = 6
MEASURED: dict[str, Any] = {"codebook": {0.15: 4, 10.0: 2}}


def patched(**settings: Any) -> nn.Module:
    return ak.patch(WAN.build().eval(), num_inference_steps=STEPS, **settings)


def communicate(_module: nn.Module, _args: Any, output: Tensor) -> None:
    dist.all_reduce(output)


def communicating(**settings: Any) -> nn.Module:
    model = patched(**settings)
    model.proj_out.register_forward_hook(communicate)  # type: ignore[operator, union-attr]
    return model


def test_an_unknown_group_is_named() -> None:
    with fake_world(2):
        model = communicating(**MEASURED)
        with pytest.raises(ValueError, match=r"communicates with other ranks \(c10d") as error:
            denoise(WAN, model, STEPS)
        ak.unpatch(model)
        denoise(WAN, model, 1)
    assert "it is not known which ranks hold parts of the same video" in str(error.value)
    assert "patch(..., process_group=group)" in str(error.value)
    assert "a schedule that measures nothing (schedule=)" in str(error.value)


def test_an_unknown_group_of_a_model_that_is_probed_is_named() -> None:
    """The first forward finds the blocks, and the first measured one the collectives."""
    with fake_world(2):
        model = Model().eval()
        ak.patch(model, **REUSING)
        model.head.register_forward_hook(communicate)
        with pytest.raises(ValueError, match="this Model communicates with other ranks"):
            run(model)


def test_a_schedule_that_measures_nothing_needs_no_group() -> None:
    with fake_world(2):
        model = communicating(schedule=[1, 2, 4])
        denoise(WAN, model, STEPS)
        assert ak.summary(model).reused_steps == [3, 5, 6]


def test_ranks_with_models_of_their_own_need_no_group() -> None:
    expected = denoise(WAN, patched(**MEASURED), STEPS)
    with fake_world(2):
        found = denoise(WAN, patched(**MEASURED), STEPS)
    assert close(found, expected)


def test_pipeline_parallelism_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_world(2) as world:
        module = ModuleType("xfuser.core.distributed.parallel_state")
        pipeline = SimpleNamespace(device_group=world)
        module.get_pp_group = lambda: pipeline  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        model = patched(**MEASURED)
        with pytest.raises(ValueError, match="xDiT splits this model over 2 ranks by its blocks"):
            denoise(WAN, model, 1)
        ak.unpatch(model)
        denoise(WAN, model, 1)


@pytest.mark.parametrize(("cut", "lengths"), [("unknown", [30, 30]), ("sequence", [None, None])])
def test_motion_on_shards_without_known_frames_is_refused(
    cut: Cut, lengths: list[int | None]
) -> None:
    group = RankGroup(SimpleNamespace(rank=lambda: 0), "shards", "SGLang", cut)
    with pytest.raises(ValueError, match="apply_moreg=True: SGLang cuts the video") as error:
        shard_of((1, 6), group, lengths, (1,))
    assert "set apply_moreg=False" in str(error.value)
    assert shard_of((1, 6), group, lengths, ()).video == (1, 1)


def on_devices(model: nn.Module, *devices: Any) -> nn.Module:
    """Say that the blocks run on these devices, as `dispatch_model` does."""
    blocks: Any = model.blocks
    for block, device in zip(blocks, devices, strict=True):
        hook = AlignDevicesHook(execution_device="cpu")
        add_hook_to_module(block, hook)
        hook.execution_device = device
    return model


@pytest.mark.parametrize(
    "settings",
    [
        MEASURED,
        {"schedule": [1, 2, 4]},
        {"config": ak.baselines.FixedIntervalConfig(interval=3)},
        {"config": ak.baselines.FirstBlockCacheConfig(threshold=0.1)},
    ],
    ids=["measured", "static", "interval", "first block"],
)
@pytest.mark.parametrize("devices", [(0, 0, 1), ("cuda:0", "cuda:1", "cuda:1")])
def test_blocks_on_two_devices_are_refused(
    devices: tuple[Any, ...], settings: dict[str, Any]
) -> None:
    model = ak.patch(WAN.build().eval(), num_inference_steps=STEPS, **settings)
    on_devices(model, *devices)
    with pytest.raises(
        ValueError, match="the blocks of this WanTransformer3DModel lie on"
    ) as error:
        denoise(WAN, model, 1)
    assert "lie on the devices 0, 1, for example because of device_map=" in str(error.value)
    assert "put all blocks on one device" in str(error.value)
    ak.reset(model)
    ak.unpatch(model)


def test_blocks_that_are_offloaded_run_on_one_device() -> None:
    """A block that lies on the host or on a disk runs on the device of the others."""
    model = on_devices(patched(schedule=[1, 2, 4]), "cpu", torch.device("cpu"), "cpu")
    denoise(WAN, model, STEPS)
    assert ak.summary(model).reused_steps == [3, 5, 6]
