"""Evaluate a trained demo pipeline: recognition, motion, reconstruction and validation loss.

    python -m bench.demo_model.evaluate PIPELINE --out DIR

It writes DIR/evaluation.json and DIR/samples.png.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, LattePipeline
from PIL import Image, ImageDraw
from torch import Generator, Tensor, nn
from tqdm import tqdm

from bench.demo_model.classifier import recognise, train_classifier
from bench.demo_model.data import (
    DIGIT_WORDS,
    FRAME_PX,
    MOTION_SPEEDS,
    load_digits,
    make_clips,
    to_rgb,
)
from bench.demo_model.diffusion import Diffusion
from bench.demo_model.models import encode_frames

logger = logging.getLogger("demo_model")

STEPS = 50
GUIDANCE = 4.0
VALIDATION_SEED = 12345
VALIDATION_CLIPS = 512
VALIDATION_BATCH = 64
RECONSTRUCTION_CLIPS = 64
ZOOM = 2
LABEL_PX = 150
GAP_PX = 2


@dataclass(frozen=True)
class Sample:
    """One generated video and its measurements.

    Args:
        prompt: the text.
        digit: of the prompt.
        kind: of motion, of the prompt.
        recognised: the digit recognised in most frames.
        right_frames: number of frames with the digit of the prompt.
        motion: in pixels a frame.
        seconds: of the generation.
    """

    prompt: str
    digit: int
    kind: str
    recognised: int
    right_frames: int
    motion: float
    seconds: float


def generate(pipeline: LattePipeline, prompt: str, seed: int) -> Tensor:
    """Generate a grey video `[f, 32, 32]` in [0, 1]."""
    frames = pipeline(
        prompt,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        # The default of LattePipeline is 512x512, whatever its transformer was built for.
        height=FRAME_PX,
        width=FRAME_PX,
        generator=Generator().manual_seed(seed),
        output_type="pt",
        clean_caption=False,
    ).frames
    return frames[0].mean(1)


def motion_per_frame(video: Tensor) -> float:
    """Return the mean of `|c_k+1 - c_k|` in pixels, with c_k the centre of mass of frame k.

    Args:
        video: grey, `[f, h, w]`.
    """
    axis = torch.arange(video.shape[-1], dtype=torch.float32)
    mass = video.sum((1, 2)).clamp_min(1e-6)
    centres = torch.stack([video.sum(1) @ axis, video.sum(2) @ axis], dim=1) / mass[:, None]
    return centres.diff(dim=0).norm(dim=1).mean().item()


def evaluate_samples(
    pipeline: LattePipeline, classifier: nn.Module
) -> tuple[list[Sample], list[Tensor]]:
    """Generate the 30 prompts, motion by motion, with the seeds 0 to 29."""
    cases = [(kind, digit) for kind in MOTION_SPEEDS for digit in range(len(DIGIT_WORDS))]
    samples, videos = [], []
    for seed, (kind, digit) in enumerate(tqdm(cases, desc="samples")):
        prompt = f"a white {DIGIT_WORDS[digit]} {kind}"
        start = time.perf_counter()
        video = generate(pipeline, prompt, seed)
        seconds = time.perf_counter() - start
        votes = recognise(classifier, video)
        best, right = votes.mode().values.item(), (votes == digit).sum().item()
        samples.append(Sample(prompt, digit, kind, best, right, motion_per_frame(video), seconds))
        videos.append(video)
    return samples, videos


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL) -> float:
    """Return the PSNR in dB of frames in [0, 1], decoded from the latent means of new clips."""
    generator = Generator().manual_seed(VALIDATION_SEED)
    rgb = to_rgb(make_clips(load_digits(), RECONSTRUCTION_CLIPS, generator).frames)
    decoded = vae.decode(vae.encode(rgb).latent_dist.mode()).sample.clamp(-1, 1)
    return -10 * ((decoded - rgb) / 2).square().mean().log10().item()


@torch.no_grad()
def validation_loss(pipeline: LattePipeline) -> float:
    """Return the mean v-loss of the transformer on the latents of new clips."""
    generator = Generator().manual_seed(VALIDATION_SEED)
    digits = load_digits()
    diffusion = Diffusion.of(pipeline.scheduler, pipeline.tokenizer, pipeline.text_encoder)
    losses = []
    for _ in tqdm(range(VALIDATION_CLIPS // VALIDATION_BATCH), desc="validation"):
        clips = make_clips(digits, VALIDATION_BATCH, generator)
        latents = encode_frames(pipeline.vae, to_rgb(clips.frames), VALIDATION_BATCH)
        losses.append(diffusion.loss(pipeline.transformer, latents, clips.captions, generator))
    return torch.stack(losses).mean().item()


def contact_sheet(samples: list[Sample], videos: list[Tensor]) -> Image.Image:
    """Return an image with a row for each video: prompt, recognised digit, and all frames."""
    cell = ZOOM * FRAME_PX + GAP_PX
    frames = videos[0].shape[0]
    sheet = Image.new("L", (LABEL_PX + frames * cell, len(videos) * cell), 255)
    draw = ImageDraw.Draw(sheet)
    for row, (sample, video) in enumerate(zip(samples, videos, strict=True)):
        draw.text((4, row * cell + 8), f"{DIGIT_WORDS[sample.digit]}\n{sample.kind}", fill=0)
        result = f"recognised: {sample.recognised}, {sample.motion:.2f} px"
        draw.text((4, row * cell + 40), result, fill=0)
        for column, frame in enumerate(video):
            picture = Image.fromarray((255 * frame).round().byte().numpy())
            tile = picture.resize((ZOOM * FRAME_PX,) * 2, Image.Resampling.NEAREST)
            sheet.paste(tile, (LABEL_PX + column * cell, row * cell))
    return sheet


def summarise(samples: list[Sample]) -> dict[str, object]:
    """Return counts, and for each motion the least, mean and most pixels a frame."""
    motion = {}
    for kind in MOTION_SPEEDS:
        speeds = [sample.motion for sample in samples if sample.kind == kind]
        motion[kind] = [min(speeds), sum(speeds) / len(speeds), max(speeds)]
    return {
        "recognised": sum(sample.recognised == sample.digit for sample in samples),
        "videos": len(samples),
        "right_frames": sum(sample.right_frames for sample in samples),
        "motion_px_per_frame": motion,
        "median_seconds_per_video": sorted(sample.seconds for sample in samples)[len(samples) // 2],
    }


def evaluate(folder: Path, out: Path) -> None:
    """Evaluate the pipeline in `folder`; write the figures and the contact sheet to `out`."""
    pipeline = LattePipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    classifier, held_out_accuracy = train_classifier(load_digits())
    samples, videos = evaluate_samples(pipeline, classifier)
    figures = {
        **summarise(samples),
        "vae_psnr_db": reconstruction_psnr(pipeline.vae),
        "validation_v_loss": validation_loss(pipeline),
        "classifier_held_out_accuracy": held_out_accuracy,
    }
    logger.info("%s", json.dumps(figures, indent=2))
    out.mkdir(parents=True, exist_ok=True)
    contact_sheet(samples, videos).save(out / "samples.png")
    report = {**figures, "samples": [asdict(sample) for sample in samples]}
    (out / "evaluation.json").write_text(json.dumps(report, indent=2) + "\n")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", type=Path, help="folder of a saved LattePipeline")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    evaluate(arguments.pipeline, arguments.out)


if __name__ == "__main__":
    main()
