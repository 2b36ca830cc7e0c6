"""Parts of pipelines beside transformer and scheduler, as arguments of their constructors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.support.tiny_models.description import noise
from tests.support.tiny_pipelines.call_arguments import Arguments
from tests.support.tiny_pipelines.stand_in_parts import Connectors, SafetyChecker, Tokenizer, Vae


def _seeded(cls: str, **config: Any) -> Any:
    """Build a random model of diffusers in evaluation mode, from seed 0."""
    import diffusers

    torch.manual_seed(0)
    return getattr(diffusers, cls)(**config).eval()


def wan_vae(channels: int = 4) -> Any:
    return _seeded(
        "AutoencoderKLWan",
        base_dim=4,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    )


def image_vae() -> Any:
    widths = (4,)
    return _seeded("AutoencoderKL", block_out_channels=widths, norm_num_groups=2, shift_factor=0.0)


def compressing_vae(spatial: int) -> Vae:
    """Return a VAE that makes 4 frames of `spatial` x `spatial` pixels one latent pixel."""
    ratios = {"temporal_compression_ratio": 4, "spatial_compression_ratio": spatial}
    return Vae(ratios, latent_channels=4)


def wan() -> Arguments:
    return {"vae": wan_vae()}


def cosmos3() -> Arguments:
    vae, tokenizer = wan_vae(channels=2), Tokenizer()
    return {"vae": vae, "text_tokenizer": tokenizer, "enable_safety_checker": False}


def hunyuan() -> Arguments:
    shape = {"latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 2}
    vae = _seeded("AutoencoderKLHunyuanVideo", block_out_channels=(4, 4, 4, 4), **shape)
    return {"vae": vae}


def cogvideox() -> Arguments:
    vae = _seeded(
        "AutoencoderKLCogVideoX",
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    return {"vae": vae}


def ltx() -> Arguments:
    vae = _seeded(
        "AutoencoderKLLTXVideo",
        latent_channels=4,
        block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    return {"vae": vae}


def ltx2() -> Arguments:
    vae = {
        "temporal_compression_ratio": 8,
        "spatial_compression_ratio": 32,
        "latents_mean": torch.zeros(4),
        "latents_std": torch.ones(4),
    }
    audio = {
        "temporal_compression_ratio": 4,
        "mel_compression_ratio": 4,
        "latents_mean": torch.zeros(64),
        "latents_std": torch.ones(64),
    }
    settings = {"sample_rate": 16000, "mel_hop_length": 160, "latent_channels": 8, "mel_bins": 32}
    return {
        "connectors": Connectors(),
        "audio_vae": Vae(audio, **settings),
        "vae": Vae(vae, scaling_factor=1.0),
    }


def kandinsky6_audio() -> Arguments:
    audio_vae = Vae({"latent_hop_length": 1024}, sample_rate=44_100)
    return {"audio_vae": audio_vae, "vocoder": Vae()}


def hunyuan15() -> Arguments:
    return {"vae": compressing_vae(16), "guider": classifier_free_guidance()}


def hunyuan15_with_skipped_layers() -> Arguments:
    layers = _of_diffusers(
        "LayerSkipConfig",
        indices=[1],
        fqn="transformer_blocks",
        skip_attention=False,
        skip_ff=True,
    )
    guider = _of_diffusers(
        "SkipLayerGuidance",
        guidance_scale=4.0,
        skip_layer_guidance_start=0.2,
        skip_layer_guidance_stop=0.9,
        skip_layer_config=layers,
    )
    return {"vae": compressing_vae(16), "guider": guider}


def motif() -> Arguments:
    vae = Vae(z_dim=16, scale_factor_temporal=4, scale_factor_spatial=8)
    return {"vae": vae, "guider": classifier_free_guidance()}


def safety_checker() -> Arguments:
    return {"safety_checker": SafetyChecker()}


def classifier_free_guidance() -> Any:
    return _of_diffusers("ClassifierFreeGuidance", guidance_scale=4.0)


def _of_diffusers(name: str, **settings: Any) -> Any:
    import diffusers

    module = diffusers if hasattr(diffusers, name) else diffusers.hooks
    return getattr(module, name)(**settings)


def set_guidance(pipe: Any, guidance: bool) -> None:
    """Turn the pipeline's guider on or off."""
    pipe.guider._guidance_scale = 4.0
    pipe.guider.guidance_scale = 4.0 if guidance else 1.0


def image_encoder(tokens: int, channels: int) -> Callable[..., Tensor]:
    """Return a function that gives every image the same embeddings, `[1, tokens, channels]`."""
    return lambda *_args, **_kwargs: noise(1, tokens, channels, seed=5)
