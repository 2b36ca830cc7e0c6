"""A Wan pipeline with random weights, for --pipeline bench/runtime/random_wan.py:build.

It has 12 layers of 4 heads and makes 9 frames of 128 x 128 pixels; matrix products take most of the
time. Its frames are latents. Their PSNR has no meaning. The pipeline serves to measure waits, work,
memory and time with guidance in two named calls a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

TEXT, TOKENS, CHANNELS = 64, 16, 4


def build(
    device: str, layers: int = 12, heads: int = 4, head_dim: int = 32
) -> tuple[Any, Callable[[str, int, int], NDArray[np.float32]]]:
    """Return (pipe, generate) for `adacache_kernels.evaluate.pipelines.load`."""
    from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT,
        freq_dim=32,
        ffn_dim=4 * heads * head_dim,
    ).eval()
    pipe = WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        transformer=transformer,
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    ).to(device)
    pipe.set_progress_bar_config(disable=True)

    def generate(prompt: str, steps: int, seed: int) -> NDArray[np.float32]:
        words = torch.Generator().manual_seed(sum(prompt.encode()))
        text, no_text = torch.randn(2, 1, TOKENS, TEXT, generator=words).to(device)
        with torch.no_grad():
            latents = pipe(
                prompt_embeds=text,
                negative_prompt_embeds=no_text,
                num_inference_steps=steps,
                guidance_scale=5.0,
                height=128,
                width=128,
                num_frames=9,
                output_type="latent",
                generator=torch.Generator().manual_seed(seed),
            ).frames
        frames = torch.sigmoid(latents)[0, :3].permute(1, 2, 3, 0)
        return frames.float().cpu().numpy()

    return pipe, generate
