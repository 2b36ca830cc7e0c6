"""Caches of other packages, run by their own code, with the workarounds that some pipelines need.

Every workaround is one that a user could apply, and is a note of the method:

- a cache context around each forward call, if the pipeline names none;
- the timestep, if a cache of diffusers needs it;
- the number of steps, if a cache needs it and the options do not give it;
- the names of attentions and MLPs, if TaylorSeer's own patterns match no module;
- Latte's blocks in pairs, if a cache expects one list of blocks; they are registered with diffusers
  or passed to cache-dit by its `BlockAdapter`.

The option `help=False` turns all workarounds off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import nn

from ..models.module_names import module_names_for
from .latte_pairs import LattePair, paired
from .option_values import check_known, numbers_from

CACHE_DIT = "cache-dit"
LATTE = "LatteTransformer3DModel"
FORECAST_ORDER = "taylorseer_order"
"""An option of cache-dit that is a field of its calibrator's config, not of its own config."""

CONTEXT_NOTE = 'a cache context "cond" around every forward'
TIMESTEP_NOTE = "given the pipeline's timestep"
STEPS_NOTE = "given the number of steps"
PATTERNS_NOTE = "given patterns that name the attentions and MLPs"
PAIRS_NOTE = "given Latte's spatial and temporal blocks in pairs"


@dataclass(frozen=True)
class ExternalCache:
    """A cache of another package.

    Args:
        config: class of its settings.
        options: settings.
        steps: of a generation.
        workarounds: apply them.
        notes: the workarounds applied so far.
    """

    config: type
    options: Mapping[str, Any]
    steps: int
    workarounds: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Return the name of its config."""
        return self.config.__name__

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    @contextmanager
    def applied(self, pipe: Any) -> Iterator[None]:
        """Enable the cache in the pipeline inside of the context."""
        is_cache_dit = self.config.__module__.startswith("cache_dit")
        enabled = _enabled_by_cache_dit if is_cache_dit else _enabled_by_diffusers
        with ExitStack() as stack:
            if self._needs_pairs(pipe):
                self.note(PAIRS_NOTE)
                stack.enter_context(paired(pipe.transformer))
            stack.enter_context(enabled(pipe, self))
            yield

    def _needs_pairs(self, pipe: Any) -> bool:
        expects_list = self.name in ("DBCacheConfig", "FirstBlockCacheConfig", "MagCacheConfig")
        return self.workarounds and expects_list and type(pipe.transformer).__name__ == LATTE


def external_cache(
    text: str, name: str, options: Mapping[str, Any], steps: int
) -> ExternalCache | None:
    """Return the cache with a name, None if there is none.

    Args:
        text: the whole method, for the messages.
        name: "cache-dit", or a config of diffusers with or without "Config".
        options: settings, and `help`.
        steps: of a generation.

    Raises:
        ValueError: its package is not installed, or an option is unknown or has a wrong value.
    """
    config = _config(text, name)
    if config is None:
        return None
    options = dict(options)
    workarounds = options.pop("help", True)
    known = [each.name for each in fields(config)]
    known += [FORECAST_ORDER] * (name == CACHE_DIT)
    check_known(text, options, [*known, "help"])
    values = {key: _value(text, key, value) for key, value in options.items()}
    return ExternalCache(config, values, steps, bool(workarounds))


def _config(text: str, name: str) -> Any:
    if name == CACHE_DIT:
        # Without this, it logs the settings of every forward call. It reads this at its import.
        os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")
        try:
            from cache_dit import DBCacheConfig
        except ImportError as error:
            raise ValueError(f"method {text!r}: pip install cache-dit ({error})") from error
        return DBCacheConfig
    import diffusers

    name = f"{name.removesuffix('Config')}Config"
    return getattr(diffusers, name, None) if name.isidentifier() else None


def _value(text: str, key: str, value: Any) -> Any:
    """Return the dtype or the numbers that `value` names, or `value` itself."""
    if key.endswith("dtype") and isinstance(value, str):
        dtype = getattr(torch, value, None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"method {text!r}: torch has no dtype {value}")
        return dtype
    return numbers_from(text, value)


@contextmanager
def _enabled_by_diffusers(pipe: Any, cache: ExternalCache) -> Iterator[None]:
    transformer, options = pipe.transformer, dict(cache.options)
    if cache.workarounds:
        options |= _missing_options(pipe, cache)
        _register_pairs()
    transformer.enable_cache(cache.config(**options))
    try:
        is_taylorseer = cache.name == "TaylorSeerCacheConfig"
        if cache.workarounds and is_taylorseer and not any(_hooks(transformer)):
            transformer.disable_cache()
            cache.note(PATTERNS_NOTE)
            patterns = {"cache_identifiers": _module_patterns(transformer)}
            transformer.enable_cache(cache.config(**options | patterns))
        with _named_contexts(transformer, cache):
            yield
    finally:
        transformer.disable_cache()


def _missing_options(pipe: Any, cache: ExternalCache) -> dict[str, Any]:
    """Return the options that the config needs and that were not given."""
    missing = {each.name for each in fields(cache.config)} - set(cache.options)
    options: dict[str, Any] = {}
    if "current_timestep_callback" in missing:
        cache.note(TIMESTEP_NOTE)
        options["current_timestep_callback"] = lambda: pipe._current_timestep
    if "num_inference_steps" in missing:
        cache.note(STEPS_NOTE)
        options["num_inference_steps"] = cache.steps
    return options


def _register_pairs() -> None:
    from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry

    one_output = TransformerBlockMetadata(return_hidden_states_index=0)
    TransformerBlockRegistry.register(LattePair, one_output)


def _hooks(transformer: nn.Module) -> Iterator[Any]:
    for module in transformer.modules():
        registry = getattr(module, "_diffusers_hook", None)
        yield from registry.hooks.values() if registry is not None else ()


def _needs_context(transformer: nn.Module) -> bool:
    from diffusers.hooks.hooks import StateManager

    values = (value for hook in _hooks(transformer) for value in vars(hook).values())
    return any(isinstance(value, StateManager) for value in values)


def _module_patterns(transformer: nn.Module) -> list[str]:
    """Return patterns that match the attentions and MLPs of all blocks."""
    units = module_names_for(transformer)
    if units is None:
        raise ValueError(
            f"TaylorSeer's patterns match no module of {type(transformer).__name__}, and this "
            "package does not know which modules are its attentions; give cache_identifiers=[...]"
        )
    pairs = [pair for pairs in units.modules.values() for pair in pairs]
    return [rf"{blocks}\.\d+\.{module}" for blocks, module in pairs]


@contextmanager
def _named_contexts(transformer: Any, cache: ExternalCache) -> Iterator[None]:
    """Add a cache context to every forward call for which the pipeline names none."""
    if not cache.workarounds or not _needs_context(transformer):
        yield
        return
    name_context, forward = transformer.cache_context, transformer.forward
    own_forward = "forward" in vars(transformer)
    active: list[str] = []

    @contextmanager
    def cache_context(name: str, **options: Any) -> Iterator[None]:
        active.append(name)
        try:
            with name_context(name, **options):
                yield
        finally:
            active.pop()

    def forward_in_context(*args: Any, **kwargs: Any) -> Any:
        if active:
            return forward(*args, **kwargs)
        cache.note(CONTEXT_NOTE)
        with name_context("cond"):
            return forward(*args, **kwargs)

    transformer.cache_context, transformer.forward = cache_context, forward_in_context
    try:
        yield
    finally:
        del transformer.cache_context
        if own_forward:
            transformer.forward = forward
        else:
            del transformer.forward


@contextmanager
def _enabled_by_cache_dit(pipe: Any, cache: ExternalCache) -> Iterator[None]:
    import cache_dit

    options = dict(cache.options)
    order = options.pop(FORECAST_ORDER, None)
    calibrator = None
    if order is not None:
        calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order)
    target = pipe
    if PAIRS_NOTE in cache.notes:
        target = cache_dit.BlockAdapter(
            pipe=pipe,
            transformer=pipe.transformer,
            blocks=pipe.transformer.transformer_blocks,
            forward_pattern=cache_dit.ForwardPattern.Pattern_3,
        )
    try:
        cache_dit.enable_cache(
            target, cache_config=cache.config(**options), calibrator_config=calibrator
        )
        yield
    finally:
        cache_dit.disable_cache(target)
