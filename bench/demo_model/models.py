"""Build the five parts of the demo `LattePipeline`, untrained."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler, LatteTransformer3DModel
from diffusers.models.attention import BasicTransformerBlock
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from bench.demo_model.data import DIGIT_WORDS, FRAME_PX, FRAMES, MOTION_SPEEDS

LATENT_CHANNELS = 4
CAPTION_CHANNELS = 64
CAPTION_TOKENS = 6
"""Tokens of a prompt: five words and the end token."""

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")


def build_transformer() -> LatteTransformer3DModel:
    """Build a Latte of 2.03 M parameters whose residual branches and output start at zero."""
    transformer = LatteTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=LATENT_CHANNELS,
        # LattePipeline drops the second half, Latte's prediction of the variance.
        out_channels=2 * LATENT_CHANNELS,
        num_layers=4,
        cross_attention_dim=128,
        attention_bias=True,
        sample_size=8,
        patch_size=2,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=CAPTION_CHANNELS,
        video_length=FRAMES,
    )
    for block in (*transformer.transformer_blocks, *transformer.temporal_transformer_blocks):
        for linear in _residual_outputs(block):
            _zero(linear)
    _zero(transformer.proj_out)
    return transformer


def _residual_outputs(block: BasicTransformerBlock) -> list[nn.Linear]:
    attentions = [block.attn1] if block.attn2 is None else [block.attn1, block.attn2]
    return [*(attention.to_out[0] for attention in attentions), block.ff.net[2]]


def _zero(linear: nn.Linear) -> None:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)


def build_vae() -> AutoencoderKL:
    """Build an autoencoder of 165 k parameters, 3x32x32 to 4x8x8."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 32),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=FRAME_PX,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of the 17 words of the prompts and three special tokens."""
    motion_words = dict.fromkeys(word for motion in MOTION_SPEEDS for word in motion.split())
    words = (*SPECIAL_TOKENS, "a", "white", *DIGIT_WORDS, *motion_words)
    tokenizer = Tokenizer(
        WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def build_text_encoder(vocab_size: int, seed: int = 0) -> T5EncoderModel:
    """Build a frozen random T5 of one layer: its states only have to differ between prompts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = T5EncoderModel(
            T5Config(
                vocab_size=vocab_size,
                d_model=CAPTION_CHANNELS,
                d_kv=16,
                d_ff=128,
                num_layers=1,
                num_heads=4,
                feed_forward_proj="gated-gelu",
                decoder_start_token_id=0,
                use_cache=False,
            )
        )
    freeze(encoder)
    return encoder


def build_scheduler() -> DDIMScheduler:
    """Build a scheduler with linear betas: 16 redundant frames need more training at high noise."""
    return DDIMScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )


def freeze(model: nn.Module) -> None:
    """Round the weights to float16, the stored dtype, and turn gradients off."""
    model.half().float().eval().requires_grad_(False)


@torch.no_grad()
def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, encoder: T5EncoderModel, prompts: list[str]
) -> Tensor:
    """Return text states `[n, 6, 64]` with padding, which LattePipeline needs for empty prompts."""
    tokens = tokenizer(
        prompts, padding="max_length", max_length=CAPTION_TOKENS, return_tensors="pt"
    )
    return encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]


@torch.no_grad()
def encode_frames(vae: AutoencoderKL, rgb: Tensor, clips: int) -> Tensor:
    """Return latent means `[clips, 4, f, 8, 8]` of `rgb [clips * f, 3, 32, 32]`."""
    means = vae.encode(rgb).latent_dist.mode()
    return means.unflatten(0, (clips, -1)).transpose(1, 2)


@torch.no_grad()
def whiten(vae: AutoencoderKL, mean: Tensor, deviation: Tensor) -> None:
    """Fold `z' = (z - mean) / deviation`, both `[4]`, into the convolutions around the latents.

    The encoder's log variance decreases by `2 log deviation`; the decoder reverts both.
    """
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:LATENT_CHANNELS] /= deviation[:, None, None, None]
    quant.bias[:LATENT_CHANNELS] = (quant.bias[:LATENT_CHANNELS] - mean) / deviation
    quant.bias[LATENT_CHANNELS:] -= 2 * deviation.log()
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= deviation[None, :, None, None]
