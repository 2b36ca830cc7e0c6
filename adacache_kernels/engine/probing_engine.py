"""The engine of an unknown model, until its first forward has shown how its blocks connect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from ..config.adacache_config import AdaCacheConfig
from ..memory.arena_provider import ArenaProvider
from ..memory.plan import Storage
from ..memory.residual_store import ResidualStore
from ..models import Adapter, Probe, Unclear, batch_of, unclear_message
from ..models.block_calls import shadowed
from .base import EngineBase
from .clocks.clock import Call, EngineClock
from .eligibility import why_not_watched
from .forward_call import ForwardCall
from .reports.summary import History, Summary, summarize


class ProbingEngine(EngineBase[AdaCacheConfig]):
    """Runs the first forward, which is computed anyway, and watches the blocks.

    Args:
        model: the transformer.
        names: the block lists to watch.
        config: the settings.
        clock: describes the generation.
        arena: will provide the memory.
        succeed: called with the adapter and the call that was watched.
        give_up: called if the connections are unclear; removes the patch.
    """

    def __init__(
        self,
        model: nn.Module,
        names: list[str],
        config: AdaCacheConfig,
        clock: EngineClock,
        arena: ArenaProvider,
        succeed: Callable[[Adapter, Call], None],
        give_up: Callable[[], None],
    ) -> None:
        super().__init__(model, config, clock)
        self._names = names
        self._memory = ResidualStore(arena, Storage(config.cache_dtype), ())
        self._succeed = succeed
        self._give_up = give_up

    @property
    def reason_not_single(self) -> str:
        """Return the reason: the blocks are not known yet."""
        return (
            f"{type(self.model).__name__} is not a known class; run it once, so that its blocks "
            "are found"
        )

    def summary(self) -> Summary:
        """Return the summary of a model that has run no generation."""
        return summarize(
            History(),
            model=type(self.model).__name__,
            found=f"not yet: the first forward will show how {' and '.join(self._names)} connect",
            branches=(),
            measured=(),
            memory=self._memory.report(),
            config=self.config.to_dict(),
            codebook=(),
            reasons=self.user_warnings,
        )

    def _begin_generation(self) -> None:
        """Do nothing: the engine that comes after this one begins the generation."""

    def _forget_generation(self) -> None:
        """Do nothing: nothing is stored."""

    def _lose_residuals(self) -> None:
        """Do nothing: nothing is stored."""

    def _run(self, call: Call, forward: ForwardCall) -> Any:
        """Watch the blocks in a forward call.

        Raises:
            ValueError: the connections of the blocks are unclear; the message says what would
                settle it. The model is then no longer patched.
        """
        reason = why_not_watched(self.model)
        if reason is not None:
            self.user_warnings.warn("not cached", reason, call.step)
            return forward.run()
        probe = Probe(self.model, self._names)
        with shadowed(self.model, probe.lists()):
            output = forward.run()
        try:
            adapter = probe.adapter(batch_of(forward.arguments))
        except Unclear as unclear:
            self._give_up()
            raise ValueError(unclear_message(self.model, str(unclear))) from unclear
        self._succeed(replace(adapter, why_not_cached=_new_arguments(forward.arguments)), call)
        return output


def _new_arguments(
    watched: Mapping[str, Any],
) -> Callable[[nn.Module, Mapping[str, Any]], str | None]:
    """Return a check for arguments that were None in the watched call: they may be new streams."""
    known = {name for name, value in watched.items() if value is not None}

    def reason_not_cached(_model: nn.Module, arguments: Mapping[str, Any]) -> str | None:
        new = [name for name, value in arguments.items() if value is not None and name not in known]
        if not new:
            return None
        return (
            f"{', '.join(new)} came with the call, but not with the first call, in which the "
            "blocks were watched, so such calls are computed; unpatch the model, patch it again, "
            "and make such a call first"
        )

    return reason_not_cached
