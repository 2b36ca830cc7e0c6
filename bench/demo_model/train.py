"""Train the demo text-to-video pipeline from scratch, on two CPU cores.

    python -m bench.demo_model.train --out DIR

It runs four stages (vae, latents, image, video) and exports DIR/pipeline. A stage with a checkpoint
in DIR/checkpoints is skipped.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from diffusers import AutoencoderKL, LattePipeline, LatteTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor
from torch.optim import AdamW, Muon, Optimizer
from tqdm import tqdm

from bench.demo_model.data import Clips, load_digits, make_clips, to_rgb
from bench.demo_model.diffusion import Diffusion
from bench.demo_model.models import (
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    build_vae,
    encode_frames,
    freeze,
    whiten,
)
from bench.demo_model.precision import (
    MasterWeights,
    mean_over_processes,
    set_learning_rates,
    split_weights,
)

logger = logging.getLogger("demo_model")

PROCESSES = 2
"""Each has one thread: on a busy machine, that is faster than one process with two threads."""

SEED = 0
L1_WEIGHT = 0.3
KL_WEIGHT = 1e-4
VAE_RATE = 2e-3
MUON_RATE = 2.5e-3
ADAMW_RATE = 1e-3
TIMESTEP_RATE = 5e-4
"""Lower for the timestep embedding, whose noise affects every block."""

VIDEO_RATE_FACTOR = 0.8
CONDITION_DROP = 0.1
EMA_DECAY = 0.995
WARMUP = 50
WHITENING_CLIPS = 256
ENCODE_CLIPS = 32


@dataclass(frozen=True)
class Lengths:
    """Iterations of each stage, batch sizes and pool of clips, counted over all processes."""

    vae: int = 3000
    image: int = 2000
    video: int = 3600
    vae_batch: int = 64
    image_batch: int = 256
    video_batch: int = 32
    pool: int = 16384


SMOKE = Lengths(vae=4, image=4, video=4, vae_batch=8, image_batch=8, video_batch=4, pool=64)


@dataclass(frozen=True)
class Worker:
    """One of the training processes.

    Args:
        rank: of the process.
        out: output folder.
        lengths: of the stages.
    """

    rank: int
    out: Path
    lengths: Lengths

    def generator(self, stage: int) -> Generator:
        """Return the random generator of a stage, one for each rank."""
        return Generator().manual_seed(1000 * SEED + 10 * stage + self.rank)

    def checkpoint(self, stage: str) -> Path:
        """Return the checkpoint of a stage, which exists after the stage."""
        return self.out / "checkpoints" / f"{stage}.safetensors"

    def save(self, stage: str, tensors: dict[str, Tensor]) -> None:
        """Write the checkpoint on rank 0, and wait for it on all ranks."""
        if self.rank == 0:
            path = self.checkpoint(stage)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
            partial.replace(path)
        dist.barrier()


@dataclass(frozen=True)
class LatentPool:
    """The whitened latents `videos [n, 4, f, 8, 8]` of one rank in bfloat16, and `captions [n]`."""

    videos: Tensor
    captions: Tensor

    def draw_videos(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw random clips, and reverse half of them: a reversed clip is equally likely."""
        picks = torch.randint(len(self.captions), (count,), generator=generator)
        videos = self.videos[picks].float()
        backwards = torch.rand(count, 1, 1, 1, 1, generator=generator) < 0.5
        return torch.where(backwards, videos.flip(2), videos), self.captions[picks]

    def draw_images(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw random single frames `[count, 4, 1, 8, 8]`."""
        picks = torch.randint(len(self.captions), (count,), generator=generator)
        frames = torch.randint(self.videos.shape[2], (count,), generator=generator)
        return self.videos[picks, :, frames].float().unsqueeze(2), self.captions[picks]


def linear_decay(step: int, steps: int) -> float:
    """Return the rate factor: a linear warm-up, then a linear decay to zero."""
    return min((step + 1) / WARMUP, (steps - step) / steps)


def fit(
    name: str,
    weights: MasterWeights,
    optimizers: list[Optimizer],
    steps: int,
    loss: Callable[[], Tensor],
) -> None:
    """Run `steps` iterations with averaged gradients, clipping and linear decay."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["peak_lr"] = group["lr"]
    smooth = None
    quiet = dist.get_rank() > 0
    with tqdm(total=steps, desc=name, disable=quiet, mininterval=10) as progress:
        for step in range(steps):
            set_learning_rates(optimizers, linear_decay(step, steps))
            value = loss()
            value.backward()
            weights.collect_gradients()
            for optimizer in optimizers:
                optimizer.step()
            weights.publish()
            smooth = value.detach() if smooth is None else torch.lerp(smooth, value.detach(), 0.02)
            progress.update()
            progress.set_postfix(loss=f"{smooth:.4f}", refresh=False)
    logger.info("%s: loss %.4f", name, mean_over_processes(smooth))


def train_vae(worker: Worker) -> AutoencoderKL:
    """Run stage 1: `MSE + 0.3 L1 + 1e-4 KL` on single frames, then whiten the latents."""
    torch.manual_seed(SEED)
    vae = build_vae()
    path = worker.checkpoint("vae")
    if not path.exists():
        generator = worker.generator(1)
        _fit_vae(vae, worker, generator)
        _whiten_on_clips(vae, generator)
        worker.save("vae", vae.state_dict())
    vae.load_state_dict(load_file(path))
    freeze(vae)
    return vae


def _fit_vae(vae: AutoencoderKL, worker: Worker, generator: Generator) -> None:
    digits = load_digits()
    vae.to(memory_format=torch.channels_last)
    weights = MasterWeights(vae, EMA_DECAY)
    optimizer = AdamW(weights.masters, lr=VAE_RATE, weight_decay=0.0)
    batch = worker.lengths.vae_batch // PROCESSES

    def loss() -> Tensor:
        rgb = to_rgb(make_clips(digits, batch, generator, frames=1).frames)
        return vae_loss(vae, rgb.contiguous(memory_format=torch.channels_last), generator)

    fit("vae", weights, [optimizer], worker.lengths.vae, loss)
    vae.load_state_dict(weights.state_dict())


def vae_loss(vae: AutoencoderKL, rgb: Tensor, generator: Generator) -> Tensor:
    """Return `MSE + 0.3 L1 + 1e-4 KL`, each a mean over elements, for `rgb [n, 3, 32, 32]`."""
    posterior = vae.encode(rgb).latent_dist
    decoded = vae.decode(posterior.sample(generator)).sample
    divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    return F.mse_loss(decoded, rgb) + L1_WEIGHT * F.l1_loss(decoded, rgb) + KL_WEIGHT * divergence


def _whiten_on_clips(vae: AutoencoderKL, generator: Generator) -> None:
    clips = make_clips(load_digits(), WHITENING_CLIPS, generator)
    latents = encode_clips(vae, clips)
    whiten(vae, latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4)))


def encode_clips(vae: AutoencoderKL, clips: Clips) -> Tensor:
    """Return latent means `[b, 4, f, 8, 8]` in the dtype of the VAE."""
    rgb = to_rgb(clips.frames).to(vae.dtype).contiguous(memory_format=torch.channels_last)
    return encode_frames(vae, rgb, len(clips.captions))


def build_pool(vae: AutoencoderKL, worker: Worker) -> LatentPool:
    """Encode this rank's share of the clips, once: it takes 0.1 s for a video step of 0.5 s."""
    digits = load_digits()
    generator = worker.generator(2)
    encoder = build_vae().to(torch.bfloat16, memory_format=torch.channels_last)
    encoder.load_state_dict(vae.state_dict())
    batches = range(worker.lengths.pool // PROCESSES // ENCODE_CLIPS)
    latents, captions = [], []
    for _ in tqdm(batches, desc="latents", disable=worker.rank > 0, mininterval=10):
        clips = make_clips(digits, ENCODE_CLIPS, generator)
        latents.append(encode_clips(encoder, clips))
        captions.append(clips.captions)
    return LatentPool(torch.cat(latents), torch.cat(captions))


def train_transformer(worker: Worker, vae: AutoencoderKL) -> LatteTransformer3DModel:
    """Run stages 3 and 4: single frames without temporal blocks, then whole videos."""
    if not worker.checkpoint("video").exists():
        pool = build_pool(vae, worker)
        tokenizer = build_tokenizer()
        encoder = build_text_encoder(len(tokenizer))
        diffusion = Diffusion.of(build_scheduler(), tokenizer, encoder)
        _image_stage(worker, pool, diffusion)
        _video_stage(worker, pool, diffusion)
    transformer = build_transformer()
    transformer.load_state_dict(load_file(worker.checkpoint("video")))
    freeze(transformer)
    return transformer


def _image_stage(worker: Worker, pool: LatentPool, diffusion: Diffusion) -> None:
    if worker.checkpoint("image").exists():
        return
    torch.manual_seed(SEED)
    transformer = build_transformer()
    generator = worker.generator(3)
    batch = worker.lengths.image_batch // PROCESSES

    def loss() -> Tensor:
        latents, captions = pool.draw_images(batch, generator)
        return diffusion.loss(transformer, latents, captions, generator, CONDITION_DROP)

    fit_transformer("image", transformer, worker, worker.lengths.image, 1.0, loss)


def _video_stage(worker: Worker, pool: LatentPool, diffusion: Diffusion) -> None:
    transformer = build_transformer()
    transformer.load_state_dict(load_file(worker.checkpoint("image")))
    generator = worker.generator(4)
    batch = worker.lengths.video_batch // PROCESSES

    def loss() -> Tensor:
        latents, captions = pool.draw_videos(batch, generator)
        return diffusion.loss(transformer, latents, captions, generator, CONDITION_DROP)

    fit_transformer("video", transformer, worker, worker.lengths.video, VIDEO_RATE_FACTOR, loss)


def fit_transformer(
    stage: str,
    transformer: LatteTransformer3DModel,
    worker: Worker,
    steps: int,
    rate_factor: float,
    loss: Callable[[], Tensor],
) -> None:
    """Fit the blocks' matrices with Muon and the rest with AdamW; save the averaged weights."""
    weights = MasterWeights(transformer, EMA_DECAY)
    transformer.to(torch.bfloat16)
    matrices, timestep, rest = split_weights(weights.named_masters())
    groups = [
        {"params": timestep, "lr": rate_factor * TIMESTEP_RATE},
        {"params": rest, "lr": rate_factor * ADAMW_RATE},
    ]
    optimizers: list[Optimizer] = [
        Muon(matrices, lr=rate_factor * MUON_RATE, adjust_lr_fn="match_rms_adamw"),
        AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    fit(stage, weights, optimizers, steps, loss)
    worker.save(stage, weights.state_dict())


def export(vae: AutoencoderKL, transformer: LatteTransformer3DModel, folder: Path) -> None:
    """Write the `LattePipeline` with float16 weights."""
    tokenizer = build_tokenizer()
    pipeline = LattePipeline(
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(len(tokenizer)),
        vae=vae,
        transformer=transformer,
        scheduler=build_scheduler(),
    )
    pipeline.to(torch.float16).save_pretrained(folder)


def run_process(rank: int, out: Path, lengths: Lengths, rendezvous: str) -> None:
    """Run all stages in one of the processes."""
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.WARNING)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rendezvous, rank=rank, world_size=PROCESSES)
    worker = Worker(rank, out, lengths)
    vae = train_vae(worker)
    transformer = train_transformer(worker, vae)
    if rank == 0:
        export(vae, transformer, out / "pipeline")
    dist.destroy_process_group()


def main() -> None:
    """Run the command line: start the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--smoke", action="store_true", help="a few iterations of every stage")
    arguments = parser.parse_args()
    lengths = SMOKE if arguments.smoke else Lengths()
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = (Path(folder) / "rendezvous").as_uri()
        mp.spawn(run_process, (arguments.out, lengths, rendezvous), nprocs=PROCESSES)


if __name__ == "__main__":
    main()
