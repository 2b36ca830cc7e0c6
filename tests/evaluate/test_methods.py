"""Names of methods: refused ones, caches of diffusers, ratios from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from adacache_kernels.evaluate.method_spec import parse_method
from tests.support.tiny_study import STEPS


@pytest.mark.parametrize(
    "name, message",
    [
        ("quick", r"method 'quick': there are fast, slow, forecast, adacache, even:COUNT"),
        ("fast:3", r"method 'fast:3': '3' is no option; write key=value"),
        ("steps", r"method 'steps': after the colon comes a number of steps, 1 to 8"),
        ("steps:9", r"method 'steps:9': after the colon comes a number of steps, 1 to 8"),
        ("steps:4:Nothing", r"diffusers has no scheduler Nothing"),
        ("steps:4:x=1", r"write steps:COUNT or steps:COUNT:SCHEDULER"),
        ("fast:treshold=3", r"method 'fast:treshold=3': unknown setting treshold; there are"),
        ("fast:codebook=3", r"method 'fast:codebook=3': .*codebook"),
        ("FirstBlockCache:treshold=3", r"no option treshold; there are threshold, help"),
        ("TaylorSeerCache:taylor_factors_dtype=flot", r"torch has no dtype flot"),
        ("MagCache:mag_ratios=nothing.json", r"nothing.json holds no list of numbers"),
        ("profile", r"no profile ships for 8 steps, only for 50, 100; `adacache calibrate` makes"),
        ("refined:7", r"of 8 steps there are refined schedules of none; write refined:COUNT"),
        ("even:x", r"method 'even:x': after the colon comes a number"),
    ],
)
def test_wrong_methods(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_method(name, STEPS)


def test_a_cache_of_diffusers_by_name() -> None:
    """Applied and removed; a cache that needs timesteps gets the pipeline's."""
    from types import SimpleNamespace

    from tests.support.tiny_models.chained_models import VIDEOS

    pipe = SimpleNamespace(transformer=VIDEOS["ltx"].build(), _current_timestep=500)
    for name in ("FirstBlockCache:threshold=0.2", "PyramidAttentionBroadcastConfig"):
        with parse_method(name, STEPS).applied(pipe) as last_summary:
            assert pipe.transformer.is_cache_enabled and last_summary() is None
        assert not pipe.transformer.is_cache_enabled


def test_ratios_from_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "ratios.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="holds no list of numbers"):
        parse_method(f"mag-cache:ratios={path}", STEPS)
