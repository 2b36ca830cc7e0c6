"""Pyramid Attention Broadcast: attention outputs are reused in a window of timesteps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..config.validation import check_finite, check_int
from ..models.module_names import Kind
from .base import BaselineConfig, ModulePolicy, parse_numbers, preset

FIRST_FIVE, FIRST_SEVEN = tuple(range(5)), tuple(range(7))
OPEN_SORA_PLAN_MLP = tuple(range(738, 425, -24))


@dataclass(frozen=True, kw_only=True)
class PABConfig(BaselineConfig):
    """Pyramid Attention Broadcast (arXiv 2408.12588; settings as in NUS-HPC-AI-Lab/VideoSys).

        attention: reuse in step s (from 0)  <=>  s mod range != 0  and  low < timestep < high
        MLP: run at `mlp_timesteps`, reuse in the next `mlp_count` steps, in `mlp_blocks`

    The output of a module is stored before its gate, as in diffusers; the authors' code stores it
    after the gate. A reused module is not called; norms and gates around it run.

    A pipeline's timesteps are read once per generation. A bare model's `timestep` is read in every
    step, and on a GPU the host waits for it.

    Args:
        spatial: spatial attention runs once in so many steps; None or 1: in every step. Also the
            attention of models with one attention for space and time.
        temporal: the same for temporal attention.
        cross: the same for cross attention.
        window: timesteps (low, high) between which outputs are reused, both exclusive.
        mlp_timesteps: timesteps, as integers, at which MLP outputs are stored.
        mlp_blocks: indices of the blocks whose MLP is reused.
        mlp_count: number of steps after such a timestep in which the MLPs are reused.

    Raises:
        TypeError: a setting has the wrong type; names it, its value and what it may be.
        ValueError: a setting has a wrong value; names it, its value and what it may be.
    """

    spatial: int | None = 2
    temporal: int | None = None
    cross: int | None = None
    window: tuple[float, float] = (100.0, 800.0)
    mlp_timesteps: tuple[int, ...] = ()
    mlp_blocks: tuple[int, ...] = FIRST_FIVE
    mlp_count: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("spatial", "temporal", "cross"):
            check_int(name, getattr(self, name), at_least=1, optional=True)
        low_high = parse_numbers(
            "window", self.window, partial(check_finite, "window", at_least=0.0)
        )
        if len(low_high) != 2 or low_high[0] >= low_high[1]:
            raise ValueError(f"window is {low_high}; it must be (low, high) with low < high")
        object.__setattr__(self, "window", low_high)
        for name in ("mlp_timesteps", "mlp_blocks"):
            check = partial(check_int, name, at_least=0)
            object.__setattr__(self, name, parse_numbers(name, getattr(self, name), check))
        check_int("mlp_count", self.mlp_count, at_least=1)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> PABConfig:
        """Return published settings, for example "latte-slow" or "open-sora-fast".

        The slow ones are those of the released code, the fast ones the fastest published.

        Raises:
            ValueError: `name` is not a preset; names the presets.
        """
        return replace(PRESETS[preset(name, PRESETS)], **overrides)

    @property
    def kinds(self) -> dict[Kind, str]:
        """Return the kinds of modules that a model must have, each with the setting that asks."""
        ranges: dict[Kind, int | None] = {
            "spatial": self.spatial,
            "temporal": self.temporal,
            "cross": self.cross,
        }
        needed: dict[Kind, str] = {
            kind: f"{kind}={count}" for kind, count in ranges.items() if (count or 1) > 1
        }
        if self.mlp_timesteps:
            needed["mlp"] = "mlp_timesteps"
        return needed

    def policy(self, _num_steps: int) -> PABPolicy:
        """Return the policy of one generation."""
        return PABPolicy(self)


class PABPolicy(ModulePolicy):
    """The schedule of one generation."""

    by_timestep = True

    def __init__(self, config: PABConfig) -> None:
        super().__init__()
        self._config = config
        self._ranges = {
            "spatial": config.spatial or 1,
            "temporal": config.temporal or 1,
            "cross": config.cross or 1,
        }
        self._inside = False
        self._since_mlp: int | None = None

    def begin_step(self, step: int, timestep: float | None) -> None:
        """Begin a step, counted from 1, with the scheduler's timestep."""
        super().begin_step(step, timestep)
        assert timestep is not None
        low, high = self._config.window
        self._inside = low < timestep < high
        if int(timestep) in self._config.mlp_timesteps:
            self._since_mlp = 0
        elif self._since_mlp is not None:
            self._since_mlp += 1

    def reuses(self, kind: Kind, block: int) -> bool:
        """Return True if this module's stored output is reused in this step."""
        if kind == "mlp":
            since = self._since_mlp
            in_reach = since is not None and 1 <= since <= self._config.mlp_count
            return in_reach and block in self._config.mlp_blocks
        return self._inside and (self._step - 1) % self._ranges[kind] != 0

    def stores(self, kind: Kind, block: int) -> bool:
        """Return True if the module's output is stored in this step."""
        if kind == "mlp":
            return self._since_mlp == 0 and block in self._config.mlp_blocks
        return self._ranges[kind] > 1


LATTE = PABConfig(
    spatial=2, temporal=3, cross=6, window=(100, 800), mlp_timesteps=(720, 640, 560, 480, 400)
)
OPEN_SORA = PABConfig(
    spatial=2, temporal=4, cross=6, window=(450, 930), mlp_timesteps=(676, 788, 864)
)
OPEN_SORA_PLAN = PABConfig(
    spatial=2,
    temporal=4,
    cross=6,
    window=(100, 850),
    mlp_timesteps=OPEN_SORA_PLAN_MLP,
    mlp_blocks=FIRST_SEVEN,
)
PRESETS: dict[str, PABConfig] = {
    "latte-slow": LATTE,
    "latte-medium": replace(LATTE, spatial=3, temporal=4, cross=7),
    "latte-fast": replace(LATTE, spatial=4, temporal=6, cross=9),
    "open-sora-slow": OPEN_SORA,
    "open-sora-medium": replace(OPEN_SORA, spatial=3, temporal=5, cross=7),
    "open-sora-fast": replace(OPEN_SORA, spatial=5, temporal=7, cross=9),
    "open-sora-plan-slow": OPEN_SORA_PLAN,
    "cogvideox": PABConfig(spatial=2, window=(100, 850)),
}
