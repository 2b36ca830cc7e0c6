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
from ..models import Adapter, GivenFrames, Probe, Unclear, unclear_message
from ..models.block_calls import shadowed
from ..models.probe.own_errors import is_ours, unreadable_message
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
        give_up: called if the model cannot be cached; removes the patch.
        frames: the frames that the user gave, if any.
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
        frames: GivenFrames | None = None,
    ) -> None:
        super().__init__(model, config, clock)
        self._names = names
        self._memory = ResidualStore(arena, Storage(config.cache_dtype), ())
        self._succeed = succeed
        self._give_up = give_up
        self._frames = frames

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

        The output is lost if the model cannot be cached: nobody would see that it is not, and the
        error comes in the first step, which is soon repeated.

        Raises:
            ValueError: the model cannot be cached; the message says why, and what would help. The
                model is then no longer patched.
        """
        reason = why_not_watched(self.model)
        if reason is not None:
            self.user_warnings.warn("not cached", reason, call.step)
            return forward.run()
        probe: Probe | None = None
        try:
            probe = Probe(self.model, self._names, self._frames)
            with shadowed(self.model, probe.lists()):
                output = forward.run()
            adapter = probe.adapter(forward.arguments)
        except Unclear as unclear:
            self._give_up()
            advice = "" if probe is None else probe.alone(forward.arguments)
            raise ValueError(unclear_message(self.model, str(unclear), advice)) from unclear
        except Exception as error:
            if not is_ours(error):
                raise
            self._give_up()
            raise ValueError(unreadable_message(self.model, error)) from error
        try:
            adapter = replace(adapter, why_not_cached=_new_arguments(forward.arguments))
            self._succeed(adapter, call)
        except Exception:
            self._give_up()
            raise
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
