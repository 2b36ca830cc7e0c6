"""Count the videos of a batch."""

from __future__ import annotations

from ..config.adacache_config import AdaCacheConfig
from ..models import Adapter
from .clocks.clock import EngineClock


def videos_of(rows: int, config: AdaCacheConfig, adapter: Adapter, clock: EngineClock) -> int:
    """Return the number of videos in a batch of `rows` rows, each with its guidance rows.

    Raises:
        ValueError: `guidance_rows` does not divide the batch.
    """
    given = config.guidance_rows
    if given is not None and rows % given:
        raise ValueError(
            f"guidance_rows={given}: the batch has {rows} rows, which is not a multiple of it; "
            "give the number of guidance rows that each video has in one call"
        )
    guidance = given or _usual_guidance_rows(adapter, clock)
    # If the usual number does not divide the batch, it is wrong: each row counts as a video.
    return rows // guidance if rows % guidance == 0 else rows


def _usual_guidance_rows(adapter: Adapter, clock: EngineClock) -> int:
    in_one_call = adapter.guidance_calls == 1 and (clock.calls(1) or 1) == 1
    return 2 if in_one_call and clock.has_guidance is not False else 1
