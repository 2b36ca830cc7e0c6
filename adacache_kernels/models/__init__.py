"""Adapters: where a model has its blocks, streams, layouts and frames. No caching logic."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from .adapter import Adapter, BlockList, BlockRun, Layout, Residual, Stream
from .adapters.allegro import ALLEGRO
from .adapters.cogvideox import COGVIDEOX
from .adapters.diffusers_image import IMAGES
from .adapters.diffusers_video import VIDEOS
from .adapters.latte import LATTE
from .adapters.repositories import adapter_by_structure
from .adapters.unsupported import UNSUPPORTED
from .adapters.wan import WAN, wan_animate, wan_vace
from .find_block_lists import choose_block_lists, unclear_message
from .probe_first_forward import Probe, Unclear, batch_of

__all__ = [
    "ADAPTERS",
    "Adapter",
    "BlockList",
    "BlockRun",
    "Layout",
    "Probe",
    "Residual",
    "Stream",
    "Unclear",
    "adapter_for",
    "batch_of",
    "choose_block_lists",
    "unclear_message",
]

# By class name, so that no model library is imported.
ADAPTERS: dict[str, Adapter | Callable[[nn.Module], Adapter]] = {
    "LatteTransformer3DModel": LATTE,
    "AllegroTransformer3DModel": ALLEGRO,
    "WanTransformer3DModel": WAN,
    "CogVideoXTransformer3DModel": COGVIDEOX,
    "ChronoEditTransformer3DModel": WAN,
    "WanVACETransformer3DModel": wan_vace,
    "WanAnimateTransformer3DModel": wan_animate,
    **VIDEOS,
    **IMAGES,
}


def adapter_for(model: nn.Module) -> Adapter | None:
    """The adapter of `model`'s class, or of the class whose `forward` it inherits, or of its
    structure; None where it is not known.

    Raises:
        ValueError: a class that must not be cached, and why.
    """
    for cls in type(model).__mro__:
        if cls.__name__ in UNSUPPORTED:
            raise ValueError(
                f"{type(model).__name__} must not be cached: {UNSUPPORTED[cls.__name__]}"
            )
    for cls in type(model).__mro__:
        adapter = ADAPTERS.get(cls.__name__)
        if adapter is not None:
            return adapter if isinstance(adapter, Adapter) else adapter(model)
        if "forward" in vars(cls):
            break
    return adapter_by_structure(model)
