"""Caches of other packages, by their own code, with the help that they need on some pipelines.

Help is what a user could give as well, and every help that was given is a note of the method:

- a cache context around each forward, where the pipeline names none;
- the timestep, where a cache of diffusers asks for it;
- the number of steps, where a cache asks for it and was not told;
- the names of attentions and MLPs, where TaylorSeer's own patterns match no module;
- Latte's blocks in pairs, where a cache wants one list of blocks, registered with diffusers or
  told to cache-dit by its `BlockAdapter`.

With `help=False` a cache runs, or does not, as it is.
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
from .baseline_spec import numbers_from
from .latte_pairs import LattePair, paired

CACHE_DIT = "cache-dit"
LATTE = "LatteTransformer3DModel"
FORECAST_ORDER = "taylorseer_order"
"""An option of cache-dit that is no field of its config but of its calibrator's."""

CONTEXT_NOTE = 'a cache context "cond" around every forward'
TIMESTEP_NOTE = "told the pipeline's timestep"
STEPS_NOTE = "told the number of steps"
PATTERNS_NOTE = "given patterns that name the attentions and MLPs"
PAIRS_NOTE = "given Latte's spatial and temporal blocks in pairs"


@dataclass(frozen=True)
class Peer:
    """A cache of another package.

    Args:
        config: the class of its settings.
        options: settings.
        steps: of a generation.
        helped: whether help is given.
        notes: help that was given.
    """

    config: type
    options: Mapping[str, Any]
    steps: int
    helped: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its config."""
        return self.config.__name__

    def note(self, text: str) -> None:
        """Note a help, once."""
        if text not in self.notes:
            self.notes.append(text)

    @contextmanager
    def applied(self, pipe: Any) -> Iterator[None]:
        """The pipeline runs with the cache inside."""
        on = _cache_dit if self.config.__module__.startswith("cache_dit") else _diffusers
        with ExitStack() as stack:
            if self._needs_pairs(pipe):
                self.note(PAIRS_NOTE)
                stack.enter_context(paired(pipe.transformer))
            stack.enter_context(on(pipe, self))
            yield

    def _needs_pairs(self, pipe: Any) -> bool:
        wants_list = self.name in ("DBCacheConfig", "FirstBlockCacheConfig", "MagCacheConfig")
        return self.helped and wants_list and type(pipe.transformer).__name__ == LATTE


def find_peer(text: str, name: str, options: Mapping[str, Any], steps: int) -> Peer | None:
    """The cache that `name` names, None if there is none.

    Raises:
        ValueError: it is not installed, or has no such option; quotes `text`.
    """
    config = _config(text, name)
    if config is None:
        return None
    options = dict(options)
    helped = options.pop("help", True)
    known = [each.name for each in fields(config)]
    known += [FORECAST_ORDER] * (name == CACHE_DIT)
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(
            f"method {text!r}: no option {unknown[0]}; there are {', '.join(known)}, help"
        )
    values = {key: _value(text, key, value) for key, value in options.items()}
    return Peer(config, values, steps, bool(helped))


def _config(text: str, name: str) -> Any:
    if name == CACHE_DIT:
        # It tells of every forward's settings otherwise, and reads this when it is imported.
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
    """Numbers for a file of them, and a dtype for its name."""
    if key.endswith("dtype") and isinstance(value, str):
        dtype = getattr(torch, value, None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"method {text!r}: torch has no dtype {value}")
        return dtype
    return numbers_from(text, value)


@contextmanager
def _diffusers(pipe: Any, peer: Peer) -> Iterator[None]:
    transformer, options = pipe.transformer, dict(peer.options)
    if peer.helped:
        options = _told(pipe, peer, options)
        _register_pairs()
    transformer.enable_cache(peer.config(**options))
    try:
        if peer.helped and peer.name == "TaylorSeerCacheConfig" and not any(_hooks(transformer)):
            transformer.disable_cache()
            peer.note(PATTERNS_NOTE)
            patterns = {"cache_identifiers": _module_patterns(transformer)}
            transformer.enable_cache(peer.config(**options | patterns))
        with _named_contexts(transformer, peer):
            yield
    finally:
        transformer.disable_cache()


def _told(pipe: Any, peer: Peer, options: dict[str, Any]) -> dict[str, Any]:
    """The options, with what the config asks for and was not given."""
    asked = {each.name for each in fields(peer.config)} - set(options)
    if "current_timestep_callback" in asked:
        peer.note(TIMESTEP_NOTE)
        options |= {"current_timestep_callback": lambda: pipe._current_timestep}
    if "num_inference_steps" in asked:
        peer.note(STEPS_NOTE)
        options |= {"num_inference_steps": peer.steps}
    return options


def _register_pairs() -> None:
    from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry

    one_output = TransformerBlockMetadata(return_hidden_states_index=0)
    TransformerBlockRegistry.register(LattePair, one_output)


def _hooks(transformer: nn.Module) -> Iterator[Any]:
    for module in transformer.modules():
        registry = getattr(module, "_diffusers_hook", None)
        yield from registry.hooks.values() if registry is not None else ()


def _wants_context(transformer: nn.Module) -> bool:
    from diffusers.hooks.hooks import StateManager

    values = (value for hook in _hooks(transformer) for value in vars(hook).values())
    return any(isinstance(value, StateManager) for value in values)


def _module_patterns(transformer: nn.Module) -> list[str]:
    """Patterns that match the attentions and MLPs of all blocks."""
    units = module_names_for(transformer)
    if units is None:
        raise ValueError(
            f"TaylorSeer's patterns match no module of {type(transformer).__name__}, and it is not "
            "known which modules are its attentions; give cache_identifiers=[...]"
        )
    places = [place for places in units.modules.values() for place in places]
    return [rf"{blocks}\.\d+\.{module}" for blocks, module in places]


@contextmanager
def _named_contexts(transformer: Any, peer: Peer) -> Iterator[None]:
    """Forwards for which the pipeline names no cache context get one."""
    if not peer.helped or not _wants_context(transformer):
        yield
        return
    name_context, forward = transformer.cache_context, transformer.forward
    own_forward = "forward" in vars(transformer)
    named: list[str] = []

    @contextmanager
    def cache_context(name: str, **where: Any) -> Iterator[None]:
        named.append(name)
        try:
            with name_context(name, **where):
                yield
        finally:
            named.pop()

    def forward_in_context(*args: Any, **kwargs: Any) -> Any:
        if named:
            return forward(*args, **kwargs)
        peer.note(CONTEXT_NOTE)
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
def _cache_dit(pipe: Any, peer: Peer) -> Iterator[None]:
    import cache_dit

    options = dict(peer.options)
    order = options.pop(FORECAST_ORDER, None)
    calibrator = None
    if order is not None:
        calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order)
    target = pipe
    if PAIRS_NOTE in peer.notes:
        target = cache_dit.BlockAdapter(
            pipe=pipe,
            transformer=pipe.transformer,
            blocks=pipe.transformer.transformer_blocks,
            forward_pattern=cache_dit.ForwardPattern.Pattern_3,
        )
    try:
        cache_dit.enable_cache(
            target, cache_config=peer.config(**options), calibrator_config=calibrator
        )
        yield
    finally:
        cache_dit.disable_cache(target)
