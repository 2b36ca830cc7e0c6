"""Videos of a white digit that bounces in a black frame, and their prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOTION_SPEEDS = {
    "standing still": (0.0, 0.0),
    "moving slowly": (0.35, 0.5),
    "moving fast": (1.2, 1.6),
}
"""Range of the speed in pixels a frame, by motion."""

MOTIONS = tuple(MOTION_SPEEDS)

FRAMES = 16
FRAME_PX = 32
DIGIT_PX = (15.0, 18.0)
"""Range of the side of the square that holds the digit."""

BOX_PX = 20
"""Side of the box that MNIST fits every digit into before it pads to 28x28."""

DIGITS_FILE = Path(__file__).with_name("digits.npz")


@dataclass(frozen=True)
class Digits:
    """Digits `images [n, 20, 20]` in [0, 1], centred on their bounding box, and `labels [n]`."""

    images: Tensor
    labels: Tensor

    def subset(self, indices: Tensor) -> Digits:
        """Return the digits at `indices [m]`."""
        return Digits(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Clips:
    """Grey videos `frames [b, f, 32, 32]` in [0, 1] and their prompts as `captions [b]`.

    A caption is a row of `all_prompts()`.
    """

    frames: Tensor
    captions: Tensor


def all_prompts() -> list[str]:
    """Return the 30 prompts, in the order 3 * digit + motion."""
    return [f"a white {word} {motion}" for word in DIGIT_WORDS for motion in MOTION_SPEEDS]


def load_digits(path: Path = DIGITS_FILE) -> Digits:
    """Load `images [n, 28, 28] uint8` and `labels [n]`, and crop each image to its digit."""
    with np.load(path) as archive:
        crops = [_centre_crop(image) for image in archive["images"]]
        labels = archive["labels"].astype(np.int64)
    return Digits(torch.from_numpy(np.stack(crops)).float() / 255.0, torch.from_numpy(labels))


def _centre_crop(image: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(image)
    ink = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = ink.shape
    top, left = (BOX_PX - height) // 2, (BOX_PX - width) // 2
    crop = np.zeros((BOX_PX, BOX_PX), dtype=image.dtype)
    crop[top : top + height, left : left + width] = ink
    return crop


def make_clips(digits: Digits, count: int, generator: Generator, frames: int = FRAMES) -> Clips:
    """Draw `count` clips with uniform digits, sizes, starts, directions and speeds."""
    picks = torch.randint(len(digits.labels), (count,), generator=generator)
    motions = torch.randint(len(MOTION_SPEEDS), (count,), generator=generator)
    slowest, fastest = torch.tensor(list(MOTION_SPEEDS.values()))[motions].unbind(1)
    speeds = torch.lerp(slowest, fastest, torch.rand(count, generator=generator))
    angles = 2 * torch.pi * torch.rand(count, generator=generator)
    velocities = speeds[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1)

    sizes = DIGIT_PX[0] + (DIGIT_PX[1] - DIGIT_PX[0]) * torch.rand(count, generator=generator)
    room = (FRAME_PX - sizes)[:, None, None]
    starts = torch.rand(count, 1, 2, generator=generator) * room
    times = torch.arange(frames, dtype=torch.float32)[None, :, None]
    corners = bounce(starts + velocities[:, None] * times, room)
    centres = corners + sizes[:, None, None] / 2

    frames_out = render(digits.images[picks], centres, sizes)
    return Clips(frames_out, len(MOTION_SPEEDS) * digits.labels[picks] + motions)


def bounce(position: Tensor, room: Tensor) -> Tensor:
    """Reflect a straight path at 0 and at `room`: `room - |position mod 2 room - room|`."""
    return room - (torch.remainder(position, 2 * room) - room).abs()


def render(images: Tensor, centres: Tensor, sizes: Tensor) -> Tensor:
    """Draw `images [b, 20, 20]` at `centres [b, f, 2]` (x, y) with side `sizes [b]`, in pixels.

    Returns:
        Grey frames `[b, f, 32, 32]` in [0, 1], with bilinear interpolation.
    """
    count, frames = centres.shape[:2]
    axis = torch.arange(FRAME_PX) + 0.5
    half = (sizes / 2)[:, None, None]
    columns = (axis - centres[..., :1]) / half
    rows = (axis - centres[..., 1:]) / half
    grid_shape = (count, frames, FRAME_PX, FRAME_PX)
    grid = torch.stack(
        [columns[:, :, None, :].expand(grid_shape), rows[:, :, :, None].expand(grid_shape)], dim=-1
    )
    tall_grid = grid.reshape(count, frames * FRAME_PX, FRAME_PX, 2)
    drawn = F.grid_sample(images[:, None], tall_grid, mode="bilinear", align_corners=False)
    return drawn.view(grid_shape)


def to_rgb(frames: Tensor) -> Tensor:
    """Return grey frames `[..., h, w]` in [0, 1] as RGB `[n, 3, h, w]` in [-1, 1]."""
    grey = frames.reshape(-1, 1, *frames.shape[-2:])
    return (2 * grey - 1).expand(-1, 3, -1, -1)
