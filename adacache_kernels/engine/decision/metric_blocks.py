"""The metric blocks of a model, and what is measured instead if they are compiled."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from ...config.adacache_config import AdaCacheConfig
from ...config.validation import Location
from ...models import Adapter, BlockList, Residual
from ...models.other_libraries.torch_compile import hides_hooks_of
from ...options import CacheRes

# The paper's order of preference; every model has "block".
PREFERRED: tuple[CacheRes, ...] = ("t-attn", "s-attn", "block")


@dataclass(frozen=True)
class MetricBlock:
    """A block whose residual is measured.

    Args:
        blocks: the list that contains the block.
        index: its index in that list.
        name: the name of the measured residual.
        residual: the description of how to get the residual.
    """

    blocks: BlockList
    index: int
    name: CacheRes
    residual: Residual

    @property
    def position(self) -> tuple[str, int]:
        """Return the attribute of the block list and the index in it."""
        return self.blocks.attribute, self.index


class MetricBlocks:
    """The metric blocks that the settings name.

    A user may compile blocks at any time, so `measurable` looks again in every computed step.

    Args:
        model: the transformer.
        adapter: the description of its class.
        config: the settings.

    Raises:
        ValueError: the model has no such residual or block, or `measurable` raises.
    """

    def __init__(self, model: nn.Module, adapter: Adapter, config: AdaCacheConfig) -> None:
        self._model = model
        self._wanted = config.cache_res
        self._whole = adapter.residuals["block"]
        self._blocks = find_metric_blocks(model, adapter, config)
        self.warning = ""
        """The text for the user if the last call of `measurable` changed a residual; else empty."""
        self.measurable()

    def measurable(self) -> tuple[MetricBlock, ...]:
        """Return the blocks to measure in the forward that begins.

        Compiled code hides what is inside a block. The residual of the whole block then replaces
        that of its attention.

        Raises:
            ValueError: the user named a residual inside a block, and the block is compiled.
        """
        self.warning = ""
        return tuple(
            self._whole_block(block) if self._is_hidden(block) else block for block in self._blocks
        )

    def _is_hidden(self, block: MetricBlock) -> bool:
        if not block.residual.taps:
            return False
        module = block.blocks.whole(self._model)[block.index]
        return any(hides_hooks_of(module, tap) for tap in block.residual.taps)

    def _whole_block(self, block: MetricBlock) -> MetricBlock:
        if self._wanted is not None:
            raise ValueError(
                f"cache_res={self._wanted!r}: {block.blocks.attribute}[{block.index}] of this "
                f"{type(self._model).__name__} is compiled, which hides what is inside it; measure "
                'the whole block, cache_res="block", or leave this one block uncompiled'
            )
        self.warning = (
            f"the metric block is compiled, which hides its {block.name!r} residual. The residual "
            "of the whole block is measured instead, and its distances differ from those that the "
            'codebook was made for. Set cache_res="block" to choose this and to avoid the warning'
        )
        return replace(block, name="block", residual=self._whole)


def find_metric_blocks(
    model: nn.Module, adapter: Adapter, config: AdaCacheConfig
) -> tuple[MetricBlock, ...]:
    """Return the metric blocks that the settings name, each once.

    There are none if the forecast error is measured, or if a schedule decides.

    Raises:
        ValueError: the model has no such residual, or no block with that index.
    """
    if config.measure == "forecast-error" or config.schedule is not None:
        return ()
    name = choose_residual(model, adapter, config.cache_res)
    residual = adapter.residuals[name]
    metric_blocks = {}
    for list_name in residual.lists:
        block_lists = adapter.lists_by_block(model, list_name)
        for location in config.locations:
            number = resolve_location(location, len(block_lists), list_name)
            index = list(block_lists)[number]
            block = MetricBlock(block_lists[index], index, name, residual)
            metric_blocks[list_name, index] = block
    return tuple(metric_blocks.values())


def choose_residual(model: nn.Module, adapter: Adapter, wanted: CacheRes | None) -> CacheRes:
    """Return the name of the residual to measure; by default the first in `PREFERRED`.

    Raises:
        ValueError: the model does not have the wanted residual.
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
    """Return the index of a block in the list `attribute`, which has `count` blocks.

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
