"""Settings that the demo runs: the package's presets, and what was fitted to the demo model.

The published codebooks were made for Open-Sora's distances. `bench/demo_model/fit_codebooks.py`
fitted "demo-slow" and "demo-fast" to the demo model at 50 steps,
`bench/demo_model/make_profiles.py` made its profiles, both on prompts that the demo does not show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..schedule.presets import SETTINGS

PROFILES = Path(__file__).parent / "profiles"
SCHEDULES = PROFILES / "schedules.json"
DEMO_PRESETS: dict[str, dict[str, Any]] = {
    **SETTINGS,
    "demo-slow": {"codebook": {0.055: 4, 0.074: 2, 1.0: 1}},
    "demo-fast": {"codebook": {0.075: 4, 0.107: 2, 1.0: 1}},
}


def demo_presets(steps: int) -> dict[str, dict[str, Any]]:
    """What the demo can run with `steps` scheduler steps; "profile" where there is one for them.

    It aims at a third of the steps.
    """
    path = PROFILES / f"{steps}.json"
    if not path.is_file():
        return DEMO_PRESETS
    profile = {"profile": str(path), "computed_steps": round(0.34 * steps)}
    return DEMO_PRESETS | {"profile": {"forecast": 1, "correct": True} | profile}
