"""Adapters: where a model has its blocks, streams, layouts and frames. No caching logic."""

from __future__ import annotations

from torch import nn

from .allegro import ALLEGRO
from .base import Adapter, BlockList, BlockRun, Layout, Residual, Stream
from .chained import CHAINED
from .cogvideox import COGVIDEOX
from .latte import LATTE
from .wan import WAN

__all__ = [
    "ADAPTERS",
    "Adapter",
    "BlockList",
    "BlockRun",
    "Layout",
    "Residual",
    "Stream",
    "adapter_for",
]

# By class name, so that no model library is imported.
ADAPTERS: dict[str, Adapter] = {
    "LatteTransformer3DModel": LATTE,
    "AllegroTransformer3DModel": ALLEGRO,
    "WanTransformer3DModel": WAN,
    "CogVideoXTransformer3DModel": COGVIDEOX,
    "ChronoEditTransformer3DModel": WAN,
    **CHAINED,
}


def adapter_for(model: nn.Module) -> Adapter:
    """The adapter of `model`'s class, or of the class whose `forward` it inherits.

    Raises:
        ValueError: no adapter; names the class and those that are supported.
    """
    for cls in type(model).__mro__:
        adapter = ADAPTERS.get(cls.__name__)
        if adapter is not None:
            return adapter
        if "forward" in vars(cls):
            break
    raise ValueError(f"{type(model).__name__} is not supported; supported: {', '.join(ADAPTERS)}")
