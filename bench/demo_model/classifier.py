"""A small digit classifier for the generated videos."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from tqdm import trange

from bench.demo_model.data import BOX_PX, DIGIT_PX, DIGIT_WORDS, FRAME_PX, Digits, render

CROP_PX = 24
INK_THRESHOLD = 0.3
"""Grey value from which on a pixel belongs to the digit, for its bounding box."""

HELD_OUT_PER_DIGIT = 2
HELD_OUT_REPEATS = 50
STEPS = 1200
BATCH = 128
RATE = 2e-3
MAX_ROTATION = 0.25
"""Radians."""

MAX_STRETCH = 0.15
MAX_BEND = 0.12
"""Largest displacement on a 4x4 grid, as a part of the digit's half side."""


def train_classifier(digits: Digits, seed: int = 0) -> tuple[nn.Module, float]:
    """Fit a classifier to distorted digits; return it and its accuracy on held-out digits.

    Two of the twelve digits of each class are held out, and distorted in the same way.
    """
    generator = Generator().manual_seed(seed)
    fitted, held_out = split(digits, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_classifier()
        _fit(model, fitted, generator)
    model.eval()
    repeated = torch.arange(len(held_out.labels)).repeat(HELD_OUT_REPEATS)
    images = crop_to_ink(distort(held_out.images[repeated], generator))
    return model, accuracy(model, images, held_out.labels[repeated])


def split(digits: Digits, generator: Generator) -> tuple[Digits, Digits]:
    """Return random digits to fit to, and `HELD_OUT_PER_DIGIT` held-out ones of each class."""
    shuffled = torch.randperm(len(digits.labels), generator=generator)
    by_class = [shuffled[digits.labels[shuffled] == digit] for digit in range(len(DIGIT_WORDS))]
    held_out = torch.cat([indices[:HELD_OUT_PER_DIGIT] for indices in by_class])
    fitted = torch.cat([indices[HELD_OUT_PER_DIGIT:] for indices in by_class])
    return digits.subset(fitted), digits.subset(held_out)


def build_classifier() -> nn.Sequential:
    """Build three convolutions from `[n, 1, 24, 24]` to scores `[n, 10]`."""
    return nn.Sequential(
        *_convolution(1, 16),
        *_convolution(16, 32),
        *_convolution(32, 64),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64 * (CROP_PX // 8) ** 2, len(DIGIT_WORDS)),
    )


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]


def _fit(model: nn.Module, digits: Digits, generator: Generator) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for _ in trange(STEPS, desc="classifier", mininterval=5):
        picks = torch.randint(len(digits.labels), (BATCH,), generator=generator)
        images = crop_to_ink(distort(digits.images[picks], generator))
        loss = F.cross_entropy(model(images), digits.labels[picks], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def distort(images: Tensor, generator: Generator) -> Tensor:
    """Rotate, stretch, slant and bend `images [n, 20, 20]`, in frames `[n, 32, 32]`."""
    count = len(images)
    angles = MAX_ROTATION * _symmetric(count, generator=generator)
    stretches = 1 + MAX_STRETCH * _symmetric(count, 2, generator=generator)
    slants = MAX_STRETCH * _symmetric(count, generator=generator)
    cosines, sines = angles.cos(), angles.sin()
    matrices = torch.zeros(count, 2, 3)
    matrices[:, 0, 0] = stretches[:, 0] * cosines
    matrices[:, 0, 1] = slants - sines
    matrices[:, 1, 0] = sines
    matrices[:, 1, 1] = stretches[:, 1] * cosines
    # A margin: rotation and stretching move strokes out of the box.
    margin = BOX_PX // 5
    padded = F.pad(images, (margin,) * 4)[:, None]
    bends = MAX_BEND * _symmetric(count, 2, 4, 4, generator=generator)
    field = F.interpolate(bends, padded.shape[-2:], mode="bicubic", align_corners=True)
    grid = F.affine_grid(matrices, list(padded.shape), align_corners=False)
    bent = F.grid_sample(padded, grid + field.permute(0, 2, 3, 1), align_corners=False)

    scale = padded.shape[-1] / BOX_PX
    low, high = DIGIT_PX
    sizes = low + (high - low) * torch.rand(count, generator=generator)
    centres = FRAME_PX / 2 + _symmetric(count, 1, 2, generator=generator)
    return render(bent[:, 0], centres, scale * sizes)[:, 0]


def _symmetric(*shape: int, generator: Generator) -> Tensor:
    """Draw uniform numbers in -1 to 1."""
    return 2 * torch.rand(shape, generator=generator) - 1


def crop_to_ink(frames: Tensor) -> Tensor:
    """Crop grey `frames [n, h, w]` to the square around their ink, resized to `[n, 1, 24, 24]`.

    The longer side of the ink fills 20 of the 24 pixels. A frame without ink is not cropped.
    """
    ink = frames > INK_THRESHOLD
    top, bottom = _extent(ink.any(2))
    left, right = _extent(ink.any(1))
    side = torch.maximum(bottom - top, right - left) * CROP_PX / BOX_PX
    size = frames.shape[-1]
    matrices = torch.zeros(len(frames), 2, 3)
    matrices[:, 0, 0] = matrices[:, 1, 1] = side / size
    matrices[:, 0, 2] = (left + right) / size - 1
    matrices[:, 1, 2] = (top + bottom) / size - 1
    grid = F.affine_grid(matrices, [len(frames), 1, CROP_PX, CROP_PX], align_corners=False)
    return F.grid_sample(frames[:, None], grid, align_corners=False)


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first true index of each row of `occupied [n, k]` and the last one plus 1.

    They are 0 and k in rows without a true element.
    """
    length = occupied.shape[1]
    indices = torch.arange(length, dtype=torch.float32)
    first = torch.where(occupied, indices, length).amin(1)
    last = torch.where(occupied, indices + 1, 0).amax(1)
    empty = ~occupied.any(1)
    return first.masked_fill(empty, 0), last.masked_fill(empty, length)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of `images [n, 1, 24, 24]` whose best score is that of their label."""
    return (model(images).argmax(1) == labels).float().mean().item()


@torch.no_grad()
def recognise(model: nn.Module, video: Tensor) -> Tensor:
    """Return the recognised digit in each frame of a grey `video [f, 32, 32]`."""
    return model(crop_to_ink(video)).argmax(1)
