"""Methods that reuse steps, of this package and of others, with their defaults if possible."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import diffusers
from torch import Tensor, nn

import adacache_kernels as ak

STEPS = 20
LAYERS = 12
"""By default, cache-dit always computes the first eight blocks; the model needs more."""


@dataclass
class Now:
    """The state of a pipeline during a forward.

    Args:
        timestep: a tensor on the device, as in diffusers' pipelines.
    """

    timestep: Tensor | None = None


Enable = Callable[[nn.Module, Now], object]


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Args:
        name: name of the method.
        enable: turns it on for a model.
        package: the package that has it.
        needs: a name that only some versions of the package have.
        disable: reverts the changes of `enable` outside of the model.
    """

    name: str
    enable: Enable
    package: str = "diffusers"
    needs: str | None = None
    disable: Callable[[nn.Module], object] = lambda model: None

    @property
    def is_installed(self) -> bool:
        if importlib.util.find_spec(self.package) is None:
            return False
        return self.needs is None or hasattr(importlib.import_module(self.package), self.needs)

    @property
    def version(self) -> str:
        return str(importlib.import_module(self.package).__version__)


def ours(**settings: Any) -> Enable:
    return lambda model, now: ak.patch(model, num_inference_steps=STEPS, **settings)


def first_block_cache(model: Any, now: Now) -> None:
    model.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.05))


def pyramid_attention_broadcast(model: Any, now: Now) -> None:
    model.enable_cache(
        diffusers.PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            cross_attention_block_skip_range=4,
            spatial_attention_timestep_skip_range=(100, 800),
            cross_attention_timestep_skip_range=(100, 800),
            current_timestep_callback=lambda: now.timestep,
        )
    )


def mag_cache(model: Any, now: Now) -> None:
    # Real ratios are calibrated for each model; with these the method reuses steps.
    ratios = [1.0] * STEPS
    model.enable_cache(diffusers.MagCacheConfig(mag_ratios=ratios, num_inference_steps=STEPS))


def taylor_seer(model: Any, now: Now) -> None:
    # The default patterns match no module of Wan.
    model.enable_cache(diffusers.TaylorSeerCacheConfig(cache_identifiers=[r"blocks\.\d+\.attn\d"]))


def sea_cache(model: Any, now: Now) -> None:
    def latents(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
        return list(kwargs["hidden_states"])

    model.enable_cache(diffusers.SeaCacheConfig(raw_vision_callback=latents))


def db_cache(model: Any, now: Now) -> None:
    import cache_dit

    logging.getLogger("CACHE_DIT").setLevel(logging.ERROR)
    config = cache_dit.DBCacheConfig(num_inference_steps=STEPS, enable_separate_cfg=False)
    cache_dit.enable_cache(model, cache_config=config)


def no_db_cache(model: Any) -> None:
    import cache_dit
    from cache_dit.caching.block_adapters.block_adapters import FakeDiffusionPipeline

    cache_dit.disable_cache(model)
    # disable_cache leaves this mark on the class. The next model would then count as cached.
    if hasattr(FakeDiffusionPipeline, "_is_cached"):
        del FakeDiffusionPipeline._is_cached


# A compiled block hides its attention; so cache_res is the block's residual.
METHODS = (
    Method("unpatched", lambda model, now: None),
    Method("adacache_kernels, fast", ours(cache_res="block"), "adacache_kernels"),
    Method("adacache_kernels, forecast", ours(config="forecast"), "adacache_kernels"),
    Method("FirstBlockCache", first_block_cache, needs="FirstBlockCacheConfig"),
    Method(
        "PyramidAttentionBroadcast",
        pyramid_attention_broadcast,
        needs="PyramidAttentionBroadcastConfig",
    ),
    Method("MagCache", mag_cache, needs="MagCacheConfig"),
    Method("TaylorSeer", taylor_seer, needs="TaylorSeerCacheConfig"),
    Method("SeaCache", sea_cache, needs="SeaCacheConfig"),
    Method("cache-dit DBCache", db_cache, "cache_dit", disable=no_db_cache),
)


@contextlib.contextmanager
def context(model: Any, step: int) -> Iterator[None]:
    """Enter the cache context that diffusers' pipelines enter for a step, counted from 0."""
    sigma = 1 - (step + 0.5) / STEPS
    with model.cache_context("cond", step_index=step, sigma=sigma, num_inference_steps=STEPS):
        yield
