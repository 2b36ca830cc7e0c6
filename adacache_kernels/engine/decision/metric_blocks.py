"""The metric blocks as they can be measured now: compiled code hides what is inside a block."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from ...config.adacache_config import AdaCacheConfig
from ...config.validation import Location
from ...models import Adapter, BlockList, Residual
from ...models.other_libraries.torch_compile import hides_hooks_of
from ...options import CacheRes

# The paper's order of preference; "block" is what every model has.
PREFERRED: tuple[CacheRes, ...] = ("t-attn", "s-attn", "block")


@dataclass(frozen=True)
class MetricBlock:
    """One metric block.

    Args:
        blocks: the list that it is in.
        index: its place there.
        name: of its residual.
        residual: how its residual is told.
    """

    blocks: BlockList
    index: int
    name: CacheRes
    residual: Residual


def find_sites(
    model: nn.Module, adapter: Adapter, config: AdaCacheConfig
) -> tuple[MetricBlock, ...]:
    """The metric blocks that the config names, each once; none to measure the forecast's error.

    Raises:
        ValueError: the model has no such residual, or no block of that index.
    """
    if config.measure == "forecast-error" or config.schedule is not None:
        return ()
    name = choose_residual(model, adapter, config.cache_res)
    residual = adapter.residuals[name]
    sites = {}
    for list_name in residual.lists:
        found = adapter.lists_by_block(model, list_name)
        for location in config.locations:
            index = list(found)[resolve_location(location, len(found), list_name)]
            sites[list_name, index] = MetricBlock(found[index], index, name, residual)
    return tuple(sites.values())


def choose_residual(model: nn.Module, adapter: Adapter, wanted: CacheRes | None) -> CacheRes:
    """The residual that is wanted, by default the first of t-attn, s-attn, block.

    Raises:
        ValueError: the model does not have it.
    """
    if wanted is None:
        return next(name for name in PREFERRED if name in adapter.residuals)
    if wanted not in adapter.residuals:
        raise ValueError(
            f"cache_res={wanted!r}: {type(model).__name__} has "
            f"{', '.join(map(repr, adapter.residuals))}"
        )
    return wanted


def resolve_location(location: Location, count: int, attribute: str) -> int:
    """Index of a block in a list of `count`.

    Raises:
        ValueError: the index is out of range.
    """
    named = {"start": 0, "middle": (count - 1) // 2, "end": count - 1}
    if isinstance(location, str):
        return named[location]
    if not -count <= location < count:
        raise ValueError(
            f"cache_loc={location}: {attribute} has {count} blocks, so it may be {-count} to "
            f"{count - 1}, 'start', 'middle' or 'end'"
        )
    return location % count


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
