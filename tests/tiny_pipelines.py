"""Every pipeline that is tried."""

from __future__ import annotations

from tiny_given_pipelines import FROM_VIDEO
from tiny_image_pipelines import IMAGES
from tiny_pipeline import STEPS, TinyPipeline, scheduler
from tiny_video_pipelines import VIDEOS

__all__ = ["PIPELINES", "STEPS", "TinyPipeline", "scheduler"]

PIPELINES: dict[str, TinyPipeline] = {**VIDEOS, **FROM_VIDEO, **IMAGES}
