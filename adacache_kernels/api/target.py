"""Find the transformers of a pipeline or a model, and their engines."""

from __future__ import annotations

from torch import nn

from ..engine.base import AnyEngine
from ..engine.engine import Engine
from ..engine.router import Router
from .installation import router_of

PIPELINE = ("transformer", "transformer_2")
EXPERTS = ("high_noise_model", "low_noise_model")
"""The attributes of Wan 2.2's own code, in the order of the steps."""


def is_pipeline(model: object) -> bool:
    """Return True for an object with a transformer, and not a module or a list of modules."""
    return not isinstance(model, nn.Module | list | tuple) and bool(_named(model, PIPELINE))


def transformers_of(model: object) -> list[nn.Module]:
    """Return the transformers of a model, each once, in the order of their steps.

    Args:
        model: a transformer; a list of transformers that share a generation; a pipeline with
            `.transformer` and perhaps `.transformer_2`; or an object with `.high_noise_model` and
            `.low_noise_model`.

    Raises:
        TypeError: `model` is none of these.
    """
    if isinstance(model, nn.Module):
        return [model]
    if isinstance(model, list | tuple):
        transformers = list(model)
    else:
        transformers = _named(model, PIPELINE) or _named(model, EXPERTS)
    if not transformers or not all(isinstance(x, nn.Module) for x in transformers):
        raise TypeError(
            f"{type(model).__name__} is neither a torch module, nor a list of them, nor a pipeline "
            "with a .transformer"
        )
    return list(dict.fromkeys(transformers))


def _named(model: object, names: tuple[str, ...]) -> list[nn.Module]:
    values = [getattr(model, name, None) for name in names]
    return [value for value in values if value is not None]


def require_router(transformer: nn.Module) -> Router:
    """Return the router of a patched transformer.

    Raises:
        ValueError: the transformer is not patched.
    """
    router = router_of(transformer)
    if router is None:
        raise ValueError(f"this {type(transformer).__name__} is not patched; call patch() first")
    return router


def installed_routers(model: object) -> list[Router]:
    """Return the router of each transformer.

    Raises:
        TypeError: `model` has no transformer.
        ValueError: a transformer is not patched.
    """
    return [require_router(transformer) for transformer in transformers_of(model)]


def installed_engines(model: object) -> list[AnyEngine]:
    """Return the engine of the last call of each transformer.

    Raises:
        TypeError: `model` has no transformer.
        ValueError: a transformer is not patched.
    """
    return [router.engine for router in installed_routers(model)]


def attached_engine(model: object) -> Engine:
    """Return the single engine of a patched transformer, or of a pipeline with one transformer.

    Raises:
        TypeError: `model` has no transformer.
        ValueError: the model is not patched, is patched with a baseline, has several transformers
            or engines, or its blocks are not known yet.
    """
    transformers = transformers_of(model)
    if len(transformers) > 1:
        raise ValueError(f"{type(model).__name__} has {len(transformers)} transformers; name one")
    engine = require_router(transformers[0]).engine
    if engine.reason_not_single is not None:
        raise ValueError(engine.reason_not_single)
    assert isinstance(engine, Engine)
    return engine
