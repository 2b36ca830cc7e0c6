"""Find the transformers of what a user gave, and their engines."""

from __future__ import annotations

from torch import nn

from ..baselines.engine import BaselineEngine
from ..engine.base import AnyEngine
from ..engine.engine import Engine
from ..engine.per_branch_engine import PerBranchEngine
from ..engine.per_video_engine import PerVideoEngine
from .installation import engine_of


def _transformers(model: object) -> list[nn.Module]:
    """The transformer, or those of a pipeline in the order of its steps."""
    if isinstance(model, nn.Module):
        return [model]
    named = [getattr(model, name, None) for name in ("transformer", "transformer_2")]
    found = [transformer for transformer in named if transformer is not None]
    if not found or not all(isinstance(transformer, nn.Module) for transformer in found):
        raise TypeError(
            f"{type(model).__name__} is neither a torch module nor a pipeline with a .transformer"
        )
    return found


def installed_engines(model: object) -> list[AnyEngine]:
    """The engine of each transformer.

    Raises:
        ValueError: one is not patched.
    """
    return [_require(transformer) for transformer in _transformers(model)]


def attached_engine(model: object) -> Engine:
    """The engine of a patched model, or of a pipeline with one transformer.

    Raises:
        ValueError: the model is not patched, or with another method, or there are several models
            or engines.
    """
    transformers = _transformers(model)
    if len(transformers) > 1:
        raise ValueError(f"{type(model).__name__} has {len(transformers)} transformers; name one")
    engine = _require(transformers[0])
    if isinstance(engine, BaselineEngine):
        raise ValueError(f"the model is patched with {type(engine.config).__name__}")
    if isinstance(engine, PerVideoEngine):
        raise ValueError('batch="each": each video has an engine; patch with another batch=')
    if isinstance(engine, PerBranchEngine):
        raise ValueError('decide_for="branch": each branch has an engine; patch without it')
    if not isinstance(engine, Engine):
        raise ValueError(
            f"{type(transformers[0]).__name__} is not a class that is known; run it once, so that "
            "its blocks are found"
        )
    return engine


def _require(transformer: nn.Module) -> AnyEngine:
    engine = engine_of(transformer)
    if engine is None:
        raise ValueError(f"this {type(transformer).__name__} is not patched; call patch() first")
    return engine
