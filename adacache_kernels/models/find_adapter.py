"""Find the adapter of a model by its class or its structure."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from .adapter import Adapter
from .adapter_check import adapter_of, fits
from .adapters.allegro import ALLEGRO
from .adapters.cogvideox import COGVIDEOX
from .adapters.diffusers_image import IMAGES
from .adapters.diffusers_video import VIDEOS
from .adapters.latte import LATTE
from .adapters.repositories import adapter_by_structure
from .adapters.unsupported import UNSUPPORTED
from .adapters.wan import WAN, wan_animate, wan_vace

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
"""Adapters by class name, so that no model library is imported.

A function makes the adapter of a model whose block list depends on its config.
"""


def adapter_for(model: nn.Module) -> Adapter | None:
    """Return the adapter of a model, or None if its class and structure are unknown.

    The class counts first, or the base class whose `forward` it inherits. Then the structure
    counts, by which models of the original repositories are recognised. Neither is a proof, so the
    model must also have everything that the adapter reads.

    Raises:
        ValueError: the class or a base class must not be cached, or the model caches by itself.
            The message names the reason.
    """
    classes = type(model).__mro__
    for cls in classes:
        reason = UNSUPPORTED.get(cls.__name__)
        if reason is not None:
            raise ValueError(f"{type(model).__name__} must not be cached: {reason}")
    return _adapter_by_name(model) or adapter_by_structure(model)


def _adapter_by_name(model: nn.Module) -> Adapter | None:
    """Return the adapter of the model's class, if the model has everything that it reads."""
    for cls in type(model).__mro__:
        known = ADAPTERS.get(cls.__name__)
        if known is not None:
            adapter = adapter_of(known, model)
            return adapter if adapter is not None and fits(model, adapter) else None
        if "forward" in vars(cls):
            return None
    return None
