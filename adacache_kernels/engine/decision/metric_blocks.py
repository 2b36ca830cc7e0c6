"""The metric blocks as they can be measured now: compiled code hides what is inside a block."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ...config.adacache_config import AdaCacheConfig
from ...models import Adapter
from ...models.other_libraries.torch_compile import hides_hooks_of
from .distance_meter import MetricBlock, find_sites


class MetricBlocks:
    """The metric blocks that the settings name; blocks may be compiled at any time.

    Raises:
        ValueError: the model has no such residual or block; see `visible`.
    """

    def __init__(self, model: nn.Module, adapter: Adapter, config: AdaCacheConfig) -> None:
        self._model = model
        self._wanted = config.cache_res
        self._whole = adapter.residuals["block"]
        self._sites = find_sites(model, adapter, config)
        self.warning = ""
        """What the user should know of what `visible` found last, if anything."""
        self.visible()

    def visible(self) -> tuple[MetricBlock, ...]:
        """What to measure in the forward that begins.

        Where a block is compiled, that is what it adds as a whole in place of its attention.

        Raises:
            ValueError: the user has asked for the attention of a block that is compiled.
        """
        self.warning = ""
        return tuple(self._whole_block(site) if self._hides(site) else site for site in self._sites)

    def _hides(self, site: MetricBlock) -> bool:
        if not site.residual.taps:
            return False
        block = getattr(self._model, site.blocks.attribute)[site.index]
        return any(hides_hooks_of(block, tap) for tap in site.residual.taps)

    def _whole_block(self, site: MetricBlock) -> MetricBlock:
        if self._wanted is not None:
            raise ValueError(
                f"cache_res={self._wanted!r}: {site.blocks.attribute}[{site.index}] of this "
                f"{type(self._model).__name__} is compiled, which hides what is inside it; measure "
                'the whole block, cache_res="block", or leave this one block uncompiled'
            )
        self.warning = (
            f"the metric block is compiled, which hides its {site.name!r} residual; that of the "
            "whole block is measured in its place, and its distances are others than those that "
            'the codebook was made for; cache_res="block" asks for it'
        )
        return replace(site, name="block", residual=self._whole)
