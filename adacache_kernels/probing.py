"""Stands for the engine of a model of which nothing is known, until its first forward has shown how
its blocks are connected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from .arena_source import ArenaSource
from .blocks import Parameters, shadowed
from .cache_memory import CacheMemory
from .cache_plan import Storage
from .clock import Call, Clock
from .config import AdaCacheConfig
from .context import current_context
from .history import History, Summary, summarize
from .models import Adapter, Probe, Unclear, batch_of, not_sure


class AnyEngine(Protocol):
    """What a patched model's forward goes through."""

    clock: Clock

    def forward(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """One forward call of the model."""

    def reset(self) -> None:
        """Forget the generation."""

    def summary(self) -> Summary:
        """What happened in the last generation."""


class Probing:
    """Runs the first forward, which is computed anyway, and watches the blocks.

    Args:
        model: the transformer.
        names: of the lists to watch.
        config: the settings.
        clock: tells steps and branches apart.
        arena: where memory will be from.
        found: called with the adapter and the call that was watched.
        give_up: called where it cannot be told; takes the patch off.
    """

    def __init__(
        self,
        model: nn.Module,
        names: list[str],
        config: AdaCacheConfig,
        clock: Clock,
        arena: ArenaSource,
        found: Callable[[Adapter, Call], None],
        give_up: Callable[[], None],
    ) -> None:
        self.model, self.config, self.clock = model, config, clock
        self._names = names
        self._parameters = Parameters(model)
        self._memory = CacheMemory(arena, Storage(config.cache_dtype), ())
        self._found = found
        self._give_up = give_up

    def forward(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """The forward that is watched.

        Raises:
            ValueError: it does not tell how the blocks are connected; says what would settle it.
                The model is then no longer patched.
        """
        call = self.clock.next_call(current_context(), self._parameters.bind(args, kwargs))
        if call is None or self.model.training or torch.is_grad_enabled():
            return original(*args, **kwargs)
        probe = Probe(self.model, self._names)
        try:
            with shadowed(self.model, probe.lists()):
                output = original(*args, **kwargs)
        except BaseException:
            # The next call is the first one of a generation.
            self.clock.restart()
            raise
        try:
            adapter = probe.adapter(batch_of(self._parameters.bind(args, kwargs)))
        except Unclear as unclear:
            self._give_up()
            raise ValueError(not_sure(self.model, str(unclear))) from unclear
        self._found(adapter, call)
        return output

    def reset(self) -> None:
        """Nothing is stored."""
        self.clock.restart()

    def summary(self) -> Summary:
        """Nothing has happened."""
        return summarize(
            History(),
            model=type(self.model).__name__,
            found=f"not yet: the first forward will show how {' and '.join(self._names)} connect",
            branches=(),
            measured=(),
            memory=self._memory.report(),
            config=self.config.to_dict(),
            codebook=(),
        )
