"""The state of one generation."""

from __future__ import annotations

from typing import Any

from ..config.adacache_config import AdaCacheConfig
from ..schedule import Decision
from .cache_context import leads_before
from .make_policy import make_forecast, make_policy
from .reports.summary import History
from .residuals.guidance_branch import GuidanceBranch, ring_size


class Generation:
    """Everything that an `Engine` remembers from one call of a generation to the next.

    Args:
        config: the settings.
        num_steps: the number of steps as the clock reports it, 0 if no generation has begun.
        scheduler: the scheduler of the pipeline, None for a bare model.

    Raises:
        ValueError: a schedule that goes beyond the last step; a forecast time that the scheduler
            does not have.
    """

    def __init__(self, config: AdaCacheConfig, num_steps: int, scheduler: Any) -> None:
        self.num_steps = num_steps
        self.history = History(max(0, num_steps))
        self.policy = make_policy(config, num_steps)
        self.forecast = make_forecast(config, num_steps, scheduler)
        self.ring_size = ring_size(self.forecast.order, correct=config.correct)
        self.codebook = config.codebook_for(num_steps)
        self.motion_window = config.window_for(num_steps)
        self.branches: dict[str, GuidanceBranch] = {}
        self.leader: str | None = None
        """The name of the branch that is measured."""
        self.last_computed_step: int | None = None
        self.is_computing = True
        """True if the present step is computed, False if it is reused."""
        self._planned_step = 0
        self._last_calls: dict[str, int] = {}
        self.wants_reuse = False
        """True if the policy wants to reuse the present step, even if nothing is stored for it."""
        self._config = config
        self._decision: Decision | None = None

    def note_call(self, branch: str, step: int) -> None:
        """Note that a branch has a call in a step."""
        self._last_calls[branch] = step

    def elect_leader(self, branch: str, step: int) -> bool:
        """Let the branch lead if none leads yet, one that is less suitable, or one without calls.

        Returns:
            True if the branch has become the leader with this call.
        """
        has_leader = self.leader is not None and self._last_calls.get(self.leader, step) >= step - 1
        if has_leader and (branch == self.leader or not leads_before(branch, self.leader or "")):
            return False
        self.leader = branch
        return True

    def plan(self, step: int, *, can_reuse: bool) -> None:
        """Compute or reuse the step: one choice for all branches, also if a call is repeated."""
        if step == self._planned_step:
            return
        self._planned_step = step
        self.wants_reuse = not self.policy.compute(step, self._decision)
        self.is_computing = not (can_reuse and self.wants_reuse)
        if self.is_computing:
            self.last_computed_step = step
            self.history.computed.append(step)
        else:
            self.history.reused.append(step)

    def observe(self, decision: Decision, waited: float) -> Decision:
        """Give the policy a new decision, for which the host has waited `waited` seconds.

        Returns:
            The decision as the policy has changed it.
        """
        if waited > 0:
            self.history.waits.append(waited)
        self._decision = self.policy.observe(decision)
        return self._decision

    def store(self, decision: Decision) -> None:
        """Store a decision in the history."""
        self.history.decisions[decision.step] = decision
        if decision.not_finite:
            # A forecast must not extrapolate values that are not finite.
            for branch in self.branches.values():
                branch.drop([decision.step])

    def needs_residuals(self, branch: GuidanceBranch, step: int) -> bool:
        """Return whether a reuse, or the correction of this step, may need its residuals."""
        config = self._config
        if self.forecast.order == 0 and not (config.correct or config.compares_forecasts):
            never_reuses = config.decides_by_codebook and max(self.codebook.rates) == 1
            return not never_reuses and self.policy.may_reuse_after(step)
        is_corrected = config.correct and branch.reused_since
        return is_corrected or step < self.policy.last_reusable_step

    def note_recomputed(self, branch: str, step: int) -> None:
        """Record a branch that computes a step which the policy wanted to reuse."""
        if not self.is_computing:
            self.history.recomputed.setdefault(branch, []).append(step)
