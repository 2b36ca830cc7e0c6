"""Find the transformers of a pipeline or a model, and their engines."""

from __future__ import annotations

from torch import nn

from ..engine.base import AnyEngine
from ..engine.engine import Engine
from .installation import engine_of


def transformers_of(model: object) -> list[nn.Module]:
    """Return the transformer itself, or the transformers of a pipeline in the order of its steps.

    Raises:
        TypeError: `model` is neither a torch module nor a pipeline with a transformer.
    """
    if isinstance(model, nn.Module):
        return [model]
    named = [getattr(model, name, None) for name in ("transformer", "transformer_2")]
    transformers = [transformer for transformer in named if transformer is not None]
    if not transformers or not all(isinstance(x, nn.Module) for x in transformers):
        raise TypeError(
            f"{type(model).__name__} is neither a torch module nor a pipeline with a .transformer"
        )
    return transformers


def require_engine(transformer: nn.Module) -> AnyEngine:
    """Return the engine of a patched transformer.

    Raises:
        ValueError: the transformer is not patched.
    """
    engine = engine_of(transformer)
    if engine is None:
        raise ValueError(f"this {type(transformer).__name__} is not patched; call patch() first")
    return engine


def installed_engines(model: object) -> list[AnyEngine]:
    """Return the engine of each transformer.

    Raises:
        TypeError: `model` has no transformer.
        ValueError: a transformer is not patched.
    """
    return [require_engine(transformer) for transformer in transformers_of(model)]


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
    engine = require_engine(transformers[0])
    if engine.reason_not_single is not None:
        raise ValueError(engine.reason_not_single)
    assert isinstance(engine, Engine)
    return engine
