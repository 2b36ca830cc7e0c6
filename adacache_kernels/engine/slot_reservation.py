"""Reserve the slots of guidance branches."""

from __future__ import annotations

from ..memory.plan import SlotDemand, StreamShapes
from ..memory.residual_store import ResidualStore
from ..models import Adapter, BlockRun
from .clocks.clock import EngineClock
from .decision.distance_meter import DistanceMeter
from .generation import Generation
from .ranks.ranks import Ranks
from .ranks.shard import Shard
from .residuals.guidance_branch import GuidanceBranch


class SlotReservation:
    """Reserves the slots of a branch, before the first block of a computed forward runs.

    Args:
        adapter: the description of the model.
        clock: reports how many calls a step has.
        memory: the residual store.
        meter: knows the metric blocks.
        ranks: the ranks that decide together with this one.
    """

    def __init__(
        self,
        adapter: Adapter,
        clock: EngineClock,
        memory: ResidualStore,
        meter: DistanceMeter,
        ranks: Ranks,
    ) -> None:
        self.adapter = adapter
        self._clock = clock
        self._memory = memory
        self._meter = meter
        self._ranks = ranks
        self._calls: int | None = None
        self._branch_counts: dict[int | None, int] = {}

    def end_generation(self, generation: Generation) -> None:
        """Remember how many branches a generation had."""
        if generation.branches:
            self._branch_counts[self._calls] = len(generation.branches)

    def reserve(
        self,
        generation: Generation,
        branch: GuidanceBranch,
        video: tuple[int, int],
        shard: Shard,
        run: BlockRun,
    ) -> bool:
        """Reserve the slots of a branch and let the current stream use them.

        If several ranks decide together, they meet before.

        Args:
            generation: the present generation, whose branches lose their residuals if the plan has
                to be made again.
            branch: the branch.
            video: videos of the call, and frames of the whole videos.
            shard: the part of them that this rank holds.
            run: the call of the first block.

        Returns:
            Whether the residuals that were stored in this generation are still there.

        Raises:
            CacheBudgetError: the slots do not fit the budget.
            RuntimeError: another rank does not answer.
            ValueError: another rank has other settings or shapes.
        """
        if branch.reserved_for == branch.signature:
            self._memory.acquire()
            return True
        if self._ranks.are_several:
            branch.shard = self._ranks.meet(video, generation.num_steps, self.adapter, run.x_in)
        entering = StreamShapes.of(shard.video, self.adapter.lists[0], run.arguments)
        demand = SlotDemand(self.adapter.lists, generation.ring_size, self._meter.positions)
        self._calls = self._clock.calls(self.adapter.guidance_calls)
        # The number of branches that an earlier generation had is better than a guess.
        expected = self._branch_counts.get(self._calls, self._calls or 1)
        is_kept = self._memory.ensure(branch.index, expected, demand, entering, run.x_in.device)
        self._memory.acquire()
        if not is_kept:
            for other in generation.branches.values():
                other.lose()
        branch.reserved_for = branch.signature
        return is_kept
