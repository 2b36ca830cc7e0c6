"""The training objective: v-prediction with one timestep for each sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, LatteTransformer3DModel
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from bench.demo_model.data import all_prompts
from bench.demo_model.models import LATENT_CHANNELS, encode_prompts


@dataclass(frozen=True)
class Diffusion:
    """The target `v = sqrt(a) e - sqrt(1 - a) x` of noised `x_t = sqrt(a) x + sqrt(1 - a) e`."""

    scheduler: DDIMScheduler
    texts: Tensor
    """Text states `[31, 6, 64]` of the 30 prompts and, at the end, of the empty prompt."""

    @classmethod
    def of(
        cls,
        scheduler: DDIMScheduler,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: T5EncoderModel,
    ) -> Diffusion:
        """Encode the prompts, once."""
        return cls(scheduler, encode_prompts(tokenizer, text_encoder, [*all_prompts(), ""]))

    def loss(
        self,
        transformer: LatteTransformer3DModel,
        latents: Tensor,
        captions: Tensor,
        generator: Generator,
        drop: float = 0.0,
    ) -> Tensor:
        """Return the mean of `(v - v_hat)^2` over `latents [b, 4, f, 8, 8]`.

        A part `drop` of the captions is replaced by the empty one. Temporal blocks do not run for
        single frames.
        """
        dtype = transformer.dtype
        timesteps = stratified_timesteps(len(latents), generator)
        noise = torch.randn(latents.shape, generator=generator)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        target = self.scheduler.get_velocity(latents, noise, timesteps)
        dropped = torch.rand(len(captions), generator=generator) < drop
        texts = self.texts[torch.where(dropped, len(self.texts) - 1, captions)]
        # The CPU flash kernel's bfloat16 backward is 5 to 9 times slower.
        with sdpa_kernel(SDPBackend.MATH):
            output = transformer(
                noisy.to(dtype),
                timestep=timesteps,
                encoder_hidden_states=texts.to(dtype),
                enable_temporal_attentions=latents.shape[2] > 1,
                return_dict=False,
            )[0]
        return F.mse_loss(output[:, :LATENT_CHANNELS].float(), target)


def stratified_timesteps(count: int, generator: Generator) -> Tensor:
    """Draw one timestep from each of `count` equal parts of 0 to 999, in random order."""
    parts = torch.randperm(count, generator=generator)
    return ((parts + torch.rand(count, generator=generator)) / count * 1000).long().clamp_(max=999)
