"""T-GATE: cross attention is reused after the gate step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..config.validation import check_bool, check_int
from ..models.module_names import Kind
from .base import BaselineConfig, ModulePolicy, preset


@dataclass(frozen=True, kw_only=True)
class TGATEConfig(BaselineConfig):
    """T-GATE (arXiv 2404.02747; schedule as in HaozheLiu-ST/T-GATE, steps here counted from 1).

        cross attention:  steps 1..m run, steps after m reuse the output of step m
        self-attention:   steps 1..w+1 and m, m+1, ... run; in between, step s runs where
                          (s - 1) mod k == 0

    Self-attention is spatial and temporal. The authors' pipelines also leave out guidance after
    step m, and therefore store the mean over the branches. Here guidance goes on, as in the
    comparisons on video models.

    Args:
        gate_step: m, the last step with cross attention.
        interval: k; 1 reuses no self-attention.
        warmup: w, the number of steps before the first one whose self-attention is stored.
        mean_over_guidance: store the mean of the conditional and the unconditional output of step
            m. These are two calls of a step, or the halves of a batch; the halves are used only on
            a pipeline that is known to have guidance.

    Raises:
        TypeError: a setting has the wrong type; names it, its value and what it may be.
        ValueError: a setting has a wrong value; names it, its value and what it may be.
    """

    gate_step: int = 20
    interval: int = 2
    warmup: int = 2
    mean_over_guidance: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("gate_step", self.gate_step, at_least=1)
        check_int("interval", self.interval, at_least=1)
        check_int("warmup", self.warmup, at_least=0)
        check_bool("mean_over_guidance", self.mean_over_guidance)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> TGATEConfig:
        """Return the settings of published comparisons, as far as they are known.

        Raises:
            ValueError: `name` is not a preset; names the presets.
        """
        return replace(PRESETS[preset(name, PRESETS)], **overrides)

    @property
    def kinds(self) -> dict[Kind, str]:
        """Return the kinds of modules that a model must have, each with the setting that asks."""
        return {"cross": f"gate_step={self.gate_step}"}

    def policy(self, _num_steps: int) -> TGATEPolicy:
        """Return the policy of one generation."""
        return TGATEPolicy(self)


class TGATEPolicy(ModulePolicy):
    """The schedule of one generation."""

    def __init__(self, config: TGATEConfig) -> None:
        super().__init__()
        self._config = config
        self.mean_after = config.gate_step if config.mean_over_guidance else None

    def reuses(self, kind: Kind, block: int) -> bool:
        """Return True if this module's stored output is reused in this step."""
        gate = self._config.gate_step
        if kind == "cross":
            return self._step > gate
        warm = self._step <= self._config.warmup + 1
        if kind == "mlp" or warm or self._step >= gate:
            return False
        return (self._step - 1) % self._config.interval != 0

    def stores(self, kind: Kind, block: int) -> bool:
        """Return True if the module's output is stored in this step."""
        gate = self._config.gate_step
        if kind == "cross":
            return self._step == gate
        if kind == "mlp" or self._config.interval == 1:
            return False
        return self._config.warmup < self._step < gate


PRESETS: dict[str, TGATEConfig] = {
    "open-sora": TGATEConfig(gate_step=12, interval=2),
    "open-sora-plan": TGATEConfig(gate_step=90, interval=6),
    "latte": TGATEConfig(gate_step=20, interval=2),
}
