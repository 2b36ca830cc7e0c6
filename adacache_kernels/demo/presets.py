"""Settings that the demo runs: the package's presets, and codebooks fitted to the demo model.

The published codebooks were made for Open-Sora's distances. `bench/fit_demo_codebook.py` fitted the
others to the demo model at 50 steps, on prompts that the demo does not show.
"""

from __future__ import annotations

from typing import Any

DEMO_PRESETS: dict[str, dict[str, Any]] = {
    "slow": {"codebook": "slow"},
    "fast": {"codebook": "fast"},
    "demo-slow": {"codebook": {0.055: 4, 0.074: 2, 1.0: 1}},
    "demo-fast": {"codebook": {0.075: 4, 0.107: 2, 1.0: 1}},
}
