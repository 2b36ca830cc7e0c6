"""Settings that the demo runs: the package's presets, and those fitted to the demo model.

The published codebooks fit the distances of Open-Sora. `bench/demo_model/fit_codebooks.py` fits
"demo-slow" and "demo-fast" to the demo model at 50 steps. `bench/demo_model/make_profiles.py` makes
the profiles. Both use prompts that the demo does not show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..schedule.presets import SETTINGS

TARGET_PART = 0.34
"""Part of the steps that the preset "profile" computes."""

PROFILES = Path(__file__).parent / "profiles"
SCHEDULES = PROFILES / "schedules.json"
DEMO_PRESETS: dict[str, dict[str, Any]] = {
    **SETTINGS,
    "demo-slow": {"codebook": {0.055: 4, 0.074: 2, 1.0: 1}},
    "demo-fast": {"codebook": {0.075: 4, 0.107: 2, 1.0: 1}},
}


def demo_presets(steps: int) -> dict[str, dict[str, Any]]:
    """Return the presets for `steps` scheduler steps, by name.

    "profile" is one of them if a profile ships for this number of steps.
    """
    path = PROFILES / f"{steps}.json"
    if not path.is_file():
        return DEMO_PRESETS
    profile = {"profile": str(path), "computed_steps": round(TARGET_PART * steps)}
    return DEMO_PRESETS | {"profile": {"forecast": 1, "correct": True} | profile}
