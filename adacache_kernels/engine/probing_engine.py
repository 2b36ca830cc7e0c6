"""Stands for the engine of a model of which nothing is known, until its first forward has shown how
its blocks are connected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..config.adacache_config import AdaCacheConfig
from ..memory.arena_provider import ArenaProvider
from ..memory.plan import Storage
from ..memory.residual_store import ResidualStore
from ..models import Adapter, Probe, Unclear, batch_of, unclear_message
from ..models.block_calls import Parameters, shadowed
from .cache_context import current_context
from .clocks.clock import Call, StepClock
from .summary import History, Summary, summarize


def _new_arguments(
    watched: Mapping[str, Any],
) -> Callable[[nn.Module, Mapping[str, Any]], str | None]:
    """What was None when the blocks were watched may be a stream of which nothing is known."""
    known = {name for name, value in watched.items() if value is not None}

    def obstacle(_model: nn.Module, arguments: Mapping[str, Any]) -> str | None:
        new = [name for name, value in arguments.items() if value is not None and name not in known]
        if not new:
            return None
        return (
            f"{', '.join(new)} came with the call, but not with the first one, which showed how "
            "the blocks are connected, so that such calls are computed; unpatch the model and "
            "patch it again for them"
        )

    return obstacle


class ProbingEngine:
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
        clock: StepClock,
        arena: ArenaProvider,
        found: Callable[[Adapter, Call], None],
        give_up: Callable[[], None],
    ) -> None:
        self.model, self.config, self.clock = model, config, clock
        self._names = names
        self._parameters = Parameters(model)
        self._memory = ResidualStore(arena, Storage(config.cache_dtype), ())
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
        arguments = self._parameters.bind(args, kwargs)
        try:
            adapter = probe.adapter(batch_of(arguments))
        except Unclear as unclear:
            self._give_up()
            raise ValueError(unclear_message(self.model, str(unclear))) from unclear
        self._found(replace(adapter, why_not_cached=_new_arguments(arguments)), call)
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
