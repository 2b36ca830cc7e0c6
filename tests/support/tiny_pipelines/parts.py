"""Parts of pipelines beside the transformer: tiny ones, or what only has to be there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_pipelines.pipeline import Arguments


class Config:
    """Settings of a part that a pipeline reads and never runs."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def __getattr__(self, name: str) -> Any:
        if name == "settings" or name not in self.settings:
            raise AttributeError(name)
        return self.settings[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.settings.get(name, default)


class Part(nn.Module):
    """A part of a pipeline that is no model of diffusers."""

    device = torch.device("cpu")
    dtype = torch.float32


class Vae(Part):
    """What a pipeline reads of its VAE; for latents that come out as they are."""

    def __init__(self, attributes: Arguments | None = None, **config: Any) -> None:
        super().__init__()
        self.config = Config(**config)
        for name, value in (attributes or {}).items():
            setattr(self, name, value)


class Harmless(Part):
    """A safety checker that finds nothing."""

    def to(self, *_args: Any, **_kwargs: Any) -> Harmless:
        return self

    def check_text_safety(self, text: str) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video


def guider(pipe: Any, guidance: bool) -> None:
    pipe.guider._guidance_scale = 4.0
    pipe.guider.guidance_scale = 4.0 if guidance else 1.0


def guidance_of(name: str, **settings: Any) -> Any:
    import diffusers

    module = diffusers if hasattr(diffusers, name) else diffusers.hooks
    return getattr(module, name)(**settings)


def skipped_feed_forward() -> Any:
    where = {"indices": [1], "fqn": "transformer_blocks"}
    return guidance_of("LayerSkipConfig", skip_attention=False, skip_ff=True, **where)


def frames(count: int, width: int) -> list[Any]:
    from PIL import Image

    return [Image.new("RGB", (width, 32), (10 * k, 40, 90)) for k in range(count)]


def wan_vae(channels: int = 4) -> Any:
    import diffusers

    torch.manual_seed(0)
    return diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    ).eval()


def hunyuan_vae() -> Any:
    import diffusers

    torch.manual_seed(0)
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=2,
    ).eval()


def cogvideox_vae() -> Any:
    import diffusers

    torch.manual_seed(0)
    return diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    ).eval()


def ltx_vae() -> Any:
    import diffusers

    torch.manual_seed(0)
    return diffusers.AutoencoderKLLTXVideo(
        latent_channels=4,
        block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    ).eval()


def ltx2_vae() -> Any:
    ratios = {"temporal_compression_ratio": 8, "spatial_compression_ratio": 32}
    scale = {"latents_mean": torch.zeros(4), "latents_std": torch.ones(4)}
    return Vae({**ratios, **scale}, scaling_factor=1.0)


def ltx2_audio_vae() -> Any:
    ratios = {"mel_compression_ratio": 4, "temporal_compression_ratio": 4}
    scale = {"latents_mean": torch.zeros(64), "latents_std": torch.ones(64)}
    settings = {"sample_rate": 16000, "mel_hop_length": 160, "latent_channels": 8, "mel_bins": 32}
    return Vae({**ratios, **scale}, **settings)


def image_vae() -> Any:
    import diffusers

    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        block_out_channels=(4,), norm_num_groups=2, shift_factor=0.0
    ).eval()


class Tokenizer(Part):
    """As many tokens as a text has characters."""

    eos_token_id = 1

    def convert_tokens_to_ids(self, _token: str) -> int:
        return 2

    def apply_chat_template(self, messages: list[dict[str, str]], **_others: Any) -> Config:
        return Config(input_ids=[ord(letter) % 32 for letter in messages[-1]["content"]])


class Connectors(Part):
    """Hands the text to the video and to the audio as it is."""

    def forward(self, text: Tensor, mask: Tensor, **_others: Any) -> tuple[Tensor, Tensor, Tensor]:
        return text, text, mask
