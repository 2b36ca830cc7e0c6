"""Tiny random models of the classes that need more than a list of blocks and usual arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.support.tiny_models.chained_models import (
    BLOCKS,
    HUNYUAN,
    LTX,
    ONE,
    TWO,
    TinyClass,
    noise,
)
from tests.support.tiny_models.common_models import COGVIDEOX, WAN

VISUAL = ("visual_transformer_blocks",)
DOUBLE_AND_SINGLE = ("transformer_blocks", "single_transformer_blocks")
TEXT = noise(1, 6, 16, seed=100)


def timestep(step: int) -> Tensor:
    return torch.full((1,), 930 - 30 * step)


def unit_time(step: int) -> Tensor:
    return torch.full((1,), 0.93 - 0.03 * step)


def rising_time(step: int) -> Tensor:
    return torch.full((1,), 0.07 + 0.03 * step)


def wan(latents: Tensor, step: int, **others: Any) -> dict[str, Any]:
    text = {"encoder_hidden_states": TEXT, "timestep": timestep(step)}
    return {"hidden_states": latents, **text, **others}


def timestep_a_token(latents: Tensor, step: int) -> dict[str, Any]:
    return {**wan(latents, step), "timestep": timestep(step)[:, None].expand(1, 3 * 16)}


def image_given(latents: Tensor, step: int) -> dict[str, Any]:
    text = {"encoder_hidden_states": noise(1, 512, 16, seed=1)}
    return {**wan(latents, step), **text, "encoder_hidden_states_image": noise(1, 5, 8, seed=2)}


def vace(latents: Tensor, step: int) -> dict[str, Any]:
    return wan(latents, step, control_hidden_states=noise(1, 12, 3, 8, 8, seed=2))


def animate(latents: Tensor, step: int) -> dict[str, Any]:
    return wan(
        latents,
        step,
        encoder_hidden_states_image=noise(1, 5, 16, seed=2),
        pose_hidden_states=noise(1, 4, 2, 8, 8, seed=3),
        face_pixel_values=noise(1, 3, 5, 16, 16, seed=4),
    )


def diffusion_forcing(latents: Tensor, step: int) -> dict[str, Any]:
    times = timestep(step)[:, None] + torch.tensor([[0, 30, 60]])
    return {**wan(latents, step), "timestep": times, "enable_diffusion_forcing": True, "fps": [0]}


def consisid(latents: Tensor, step: int) -> dict[str, Any]:
    face = {"id_vit_hidden": [torch.ones(1, 2, 2)], "id_cond": torch.ones(1, 2)}
    return {**wan(latents, step), "encoder_hidden_states": noise(1, 6, 8, seed=1), **face}


def framepack(latents: Tensor, step: int) -> dict[str, Any]:
    return wan(
        latents,
        step,
        pooled_projections=noise(1, 8, seed=2),
        encoder_attention_mask=torch.ones(1, 6),
        guidance=torch.tensor([6000.0]),
        image_embeds=noise(1, 6, 16, seed=3),
        indices_latents=torch.ones(3),
        latents_clean=noise(1, 4, 2, 4, 4, seed=4),
        indices_latents_clean=torch.ones(2),
        latents_history_2x=noise(1, 4, 2, 4, 4, seed=5),
        indices_latents_history_2x=torch.ones(2),
        latents_history_4x=noise(1, 4, 8, 4, 4, seed=6),
        indices_latents_history_4x=torch.ones(8),
    )


def ltx2(latents: Tensor, step: int) -> dict[str, Any]:
    return {
        **wan(latents, step),
        "timestep": timestep(step).float(),
        "audio_hidden_states": noise(1, 9, 4, seed=7 + step),
        "audio_encoder_hidden_states": noise(1, 6, 16, seed=2),
        "encoder_attention_mask": torch.ones(1, 6).bool(),
        "num_frames": 3,
        "height": 4,
        "width": 4,
        "audio_num_frames": 9,
        "fps": 25.0,
    }


def cosmos3(latents: Tensor, step: int) -> dict[str, Any]:
    count = 3 * 4
    where = torch.arange(2, 2 + count)
    return {
        "input_ids": torch.tensor([1, 2]),
        "text_indexes": torch.tensor([0, 1]),
        "position_ids": torch.zeros((3, 2 + count), dtype=torch.long),
        "und_len": 2,
        "sequence_length": 2 + count,
        "vision_tokens": [latents],
        "vision_token_shapes": [(3, 2, 2)],
        "vision_sequence_indexes": where,
        "vision_mse_loss_indexes": where,
        "vision_timesteps": torch.full((count,), 930.0 - 30 * step),
        "vision_noisy_frame_indexes": [torch.tensor([0, 1, 2])],
    }


def kandinsky5(latents: Tensor, step: int) -> dict[str, Any]:
    return {
        **kandinsky6(latents, step),
        "visual_rope_pos": [torch.arange(3), torch.arange(4), torch.arange(4)],
        "text_rope_pos": torch.arange(6),
    }


def kandinsky6(latents: Tensor, step: int) -> dict[str, Any]:
    pooled = noise(1, 8, seed=2)
    return wan(latents, step, pooled_projections=pooled) | {"timestep": timestep(step).float()}


def kandinsky6_audio(latents: Tensor, step: int) -> dict[str, Any]:
    return {**kandinsky6(latents, step), "audio_hidden_states": noise(1, 7, 5, seed=3 + step)}


def super_resolution(latents: Tensor, step: int) -> dict[str, Any]:
    return {"hidden_states": latents, "timestep": timestep(step).float()}


def anyflow(latents: Tensor, step: int) -> dict[str, Any]:
    times = torch.full((1, 3), 930.0 - 30 * step)
    return {**wan(latents, step), "timestep": times, "r_timestep": times - 30}


def helios(latents: Tensor, step: int) -> dict[str, Any]:
    return wan(
        latents,
        step,
        indices_hidden_states=torch.ones(1, 2),
        indices_latents_history_short=torch.ones(1, 1),
        indices_latents_history_mid=torch.ones(1, 1),
        indices_latents_history_long=torch.ones(1, 4),
        latents_history_short=noise(1, 4, 1, 8, 8, seed=2),
        latents_history_mid=noise(1, 4, 1, 8, 8, seed=3),
        latents_history_long=noise(1, 4, 4, 8, 8, seed=4),
    )


def minimax(latents: Tensor, step: int) -> dict[str, Any]:
    """One sequence of 4 rows of text, 6 of audio and 12 of video."""
    text, audio, video = range(4), range(4, 10), range(10, 22)
    positions = torch.zeros(22, 3)
    positions[:, 0] = torch.arange(22)
    return {
        "hidden_states": latents,
        "audio_hidden_states": noise(1, 6, 6, seed=2 + step),
        "encoder_hidden_states": noise(1, 4, 8, seed=1),
        "timestep": torch.tensor([0.93 - 0.03 * step, 0.83 - 0.03 * step]),
        "timestep_indices": torch.tensor([0] * 4 + [1] * 6 + [0] * 12),
        "token_tags": torch.tensor([1] * 4 + [2] * 6 + [0] * 12),
        "position_ids": positions,
        "video_indices": torch.tensor(video),
        "audio_indices": torch.tensor(audio),
        "text_indices": torch.tensor(text),
    }


def motif(latents: Tensor, step: int) -> dict[str, Any]:
    return {**wan(latents, step), "encoder_hidden_states": noise(1, 6, 32, seed=1)}


def sana_wm(latents: Tensor, step: int) -> dict[str, Any]:
    camera = torch.zeros(1, 3, 20)
    camera[..., :16] = torch.eye(4).flatten()
    camera[..., 16:] = torch.tensor([4.0, 4.0, 2.0, 2.0])
    return {
        "hidden_states": latents,
        "timestep": torch.full((1, 1, 3), 930.0 - 30 * step),
        "encoder_hidden_states": noise(1, 1, 6, 16, seed=1),
        "mask": torch.ones(1, 1, 1, 6),
        "camera_conditions": camera,
        "chunk_plucker": noise(1, 6, 3, 4, 4, seed=3),
    }


def sd3(latents: Tensor, step: int) -> dict[str, Any]:
    return wan(latents, step, pooled_projections=noise(1, 32, seed=2))


def grid(*sizes: int) -> Tensor:
    return torch.cartesian_prod(*(torch.arange(size) for size in sizes))


def flux2(latents: Tensor, step: int) -> dict[str, Any]:
    return {
        "hidden_states": latents,
        "encoder_hidden_states": noise(1, 6, 32, seed=1),
        "img_ids": grid(1, 4, 4, 1)[None],
        "txt_ids": grid(1, 1, 1, 6)[None],
        "timestep": unit_time(step),
        "guidance": torch.ones(1),
    }


def flux3(latents: Tensor, step: int) -> dict[str, Any]:
    ids = {"img_ids": grid(1, 4, 4, 1).float(), "txt_ids": grid(1, 1, 1, 6).float()}
    text = {"encoder_hidden_states": noise(1, 6, 32, seed=1)}
    return {"hidden_states": latents, "timestep": unit_time(step), **text, **ids}


def lumina2(latents: Tensor, step: int) -> dict[str, Any]:
    return {
        "hidden_states": latents,
        "encoder_hidden_states": noise(1, 6, 32, seed=1),
        "timestep": rising_time(step),
        "encoder_attention_mask": torch.ones(1, 6, dtype=torch.bool),
    }


def z_image(latents: Tensor, step: int) -> dict[str, Any]:
    return {"x": list(latents), "t": rising_time(step), "cap_feats": [noise(6, 16, seed=1)]}


def hunyuan_dit(latents: Tensor, step: int) -> dict[str, Any]:
    return {
        "hidden_states": latents,
        "encoder_hidden_states": noise(1, 4, 8, seed=1),
        "text_embedding_mask": torch.ones(1, 4),
        "encoder_hidden_states_t5": noise(1, 4, 8, seed=2),
        "text_embedding_mask_t5": torch.ones(1, 4),
        "timestep": timestep(step).float(),
        "image_meta_size": torch.tensor([[1024.0, 1024, 16, 16, 0, 0]]),
        "style": torch.zeros(1, dtype=torch.long),
        "image_rotary_emb": [torch.ones(1, 8), torch.zeros(1, 8)],
    }


def hidream(latents: Tensor, step: int) -> dict[str, Any]:
    return {
        "hidden_states": latents,
        "encoder_hidden_states_t5": noise(1, 6, 8, seed=1),
        "encoder_hidden_states_llama3": noise(2, 1, 6, 4, seed=2),
        "pooled_embeds": noise(1, 8, seed=3),
        "timesteps": timestep(step),
    }


ANIMATE: dict[str, Any] = dict(
    WAN,
    num_layers=4,
    in_channels=12,
    latent_channels=4,
    image_dim=16,
    motion_encoder_channel_sizes={"4": 16, "8": 16, "16": 16},
    motion_encoder_size=16,
    motion_style_dim=8,
    motion_dim=4,
    motion_encoder_dim=16,
    face_encoder_hidden_dim=16,
    face_encoder_num_heads=2,
    inject_face_latents_blocks=2,
)
CONSISID: dict[str, Any] = dict(
    COGVIDEOX,
    num_layers=4,
    cross_attn_interval=2,
    is_kps=False,
    is_train_face=True,
    cross_attn_dim_head=4,
    cross_attn_num_heads=2,
    LFE_id_dim=2,
    LFE_vit_dim=2,
    LFE_depth=5,
    LFE_dim_head=8,
    LFE_num_heads=2,
    LFE_num_id_token=1,
    LFE_num_querie=1,
    LFE_output_dim=10,
    LFE_ff_mult=1,
    LFE_num_scale=1,
)
FRAMEPACK: dict[str, Any] = dict(
    HUNYUAN,
    image_condition_type=None,
    has_image_proj=True,
    image_proj_dim=16,
    has_clean_x_embedder=True,
)
LTX2: dict[str, Any] = dict(
    LTX,
    audio_in_channels=4,
    audio_out_channels=4,
    audio_num_attention_heads=2,
    audio_attention_head_dim=4,
    audio_cross_attention_dim=8,
    rope_double_precision=False,
)
COSMOS3: dict[str, Any] = dict(
    head_dim=6,
    hidden_act="relu2",
    hidden_size=12,
    intermediate_size=24,
    latent_channel=2,
    latent_patch_size=1,
    num_attention_heads=2,
    num_hidden_layers=3,
    num_key_value_heads=1,
    patch_latent_dim=2,
    qk_norm_for_text=False,
    rms_norm_eps=1e-5,
    rope_axes_dim=[1, 1, 1],
    rope_theta=1e8,
    vocab_size=32,
)
KANDINSKY5: dict[str, Any] = dict(
    in_visual_dim=4,
    in_text_dim=16,
    in_text_dim2=8,
    time_dim=16,
    out_visual_dim=4,
    patch_size=(1, 2, 2),
    model_dim=24,
    ff_dim=32,
    num_text_blocks=1,
    num_visual_blocks=3,
    axes_dims=(4, 4, 4),
)
KANDINSKY6: dict[str, Any] = dict(KANDINSKY5, visual_cond=False, in_audio_dim=5, out_audio_dim=5)
KANDINSKY6_SR: dict[str, Any] = dict(
    in_visual_dim=4,
    out_visual_dim=4,
    time_dim=16,
    patch_size=(1, 1, 1),
    model_dim=32,
    ff_dim=32,
    num_visual_blocks=3,
    axes_dims=(4, 6, 6),
    nabla_window=(3, 3, 3),
)
FLOW: dict[str, Any] = dict(gate_value=0.25, deltatime_type="r")
ANYFLOW: dict[str, Any] = {k: v for k, v in WAN.items() if k != "qk_norm"} | FLOW
HELIOS: dict[str, Any] = {k: v for k, v in WAN.items() if k != "rope_max_seq_len"} | dict(
    rope_dim=(4, 4, 4),
    has_multi_term_memory_patch=True,
    guidance_cross_attn=True,
    zero_history_timestep=True,
    is_amplify_history=False,
)
MINIMAX: dict[str, Any] = dict(
    num_attention_heads=2,
    attention_head_dim=16,
    hidden_size=24,
    num_layers=3,
    num_refiner_layers=1,
    ffn_dim=32,
    in_channels=4,
    audio_in_channels=6,
    patch_size=(1, 2, 2),
    text_dim=8,
    freq_dim=8,
    time_embed_hidden_dim=24,
    time_embed_dim=16,
    rope_freq_dim=2,
)
MOTIF: dict[str, Any] = dict(
    in_channels=33,
    out_channels=16,
    num_attention_heads=2,
    attention_head_dim=12,
    num_layers=2,
    num_single_layers=4,
    num_decoder_layers=2,
    mlp_ratio=2.0,
    patch_size=2,
    patch_size_t=1,
    qk_norm="rms_norm",
    norm_type="layer_norm",
    text_embed_dim=32,
    image_embed_dim=4,
    rope_theta=256.0,
    rope_axes_dim=(4, 4, 4),
    enable_text_cross_attention_dual=True,
    enable_text_cross_attention_single=True,
)
SANA_WM: dict[str, Any] = dict(
    in_channels=4,
    num_layers=4,
    hidden_size=32,
    num_attention_heads=2,
    linear_head_dim=16,
    softmax_every_n=2,
    chunk_plucker_channels=6,
    chunk_plucker_post_attn_blocks=4,
    caption_channels=16,
    mlp_ratio=2.0,
)
SD3: dict[str, Any] = dict(
    sample_size=8,
    patch_size=1,
    in_channels=4,
    num_layers=3,
    attention_head_dim=8,
    num_attention_heads=2,
    caption_projection_dim=16,
    joint_attention_dim=16,
    pooled_projection_dim=32,
    out_channels=4,
    pos_embed_max_size=16,
)
FLUX2: dict[str, Any] = dict(
    patch_size=1,
    in_channels=4,
    num_layers=2,
    num_single_layers=2,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=32,
    timestep_guidance_channels=32,
    axes_dims_rope=[4, 4, 4, 4],
)
FLUX3: dict[str, Any] = dict(
    in_channels=4,
    cond_in_channels=4,
    num_layers=2,
    num_single_layers=3,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=32,
    timestep_channels=32,
    mlp_ratio=2.0,
    axes_dims_rope=(4, 4, 4, 4),
)
LUMINA2: dict[str, Any] = dict(
    sample_size=16,
    patch_size=2,
    in_channels=4,
    hidden_size=24,
    num_layers=3,
    num_refiner_layers=1,
    num_attention_heads=3,
    num_kv_heads=1,
    multiple_of=2,
    ffn_dim_multiplier=None,
    norm_eps=1e-5,
    scaling_factor=1.0,
    axes_dim_rope=(4, 2, 2),
    axes_lens=(128, 128, 128),
    cap_feat_dim=32,
)
Z_IMAGE: dict[str, Any] = dict(
    all_patch_size=(2,),
    all_f_patch_size=(1,),
    in_channels=16,
    dim=32,
    n_layers=3,
    n_refiner_layers=1,
    n_heads=2,
    n_kv_heads=2,
    qk_norm=True,
    cap_feat_dim=16,
    rope_theta=256.0,
    t_scale=1000.0,
    axes_dims=[8, 4, 4],
    axes_lens=[256, 32, 32],
)
HUNYUAN_DIT: dict[str, Any] = dict(
    sample_size=8,
    patch_size=2,
    in_channels=4,
    num_layers=4,
    attention_head_dim=8,
    num_attention_heads=2,
    cross_attention_dim=8,
    cross_attention_dim_t5=8,
    pooled_projection_dim=4,
    hidden_size=16,
    text_len=4,
    text_len_t5=4,
    activation_fn="gelu-approximate",
)
HIDREAM: dict[str, Any] = dict(
    patch_size=2,
    in_channels=4,
    out_channels=4,
    num_layers=2,
    num_single_layers=2,
    attention_head_dim=8,
    num_attention_heads=2,
    caption_channels=[8, 4],
    text_emb_dim=8,
    num_routed_experts=2,
    num_activated_experts=2,
    axes_dims_rope=(4, 2, 2),
    max_resolution=(32, 32),
    llama_layers=(0, 1, 0, 1),
    force_inference_output=True,
)


def video(
    name: str,
    config: dict[str, Any],
    arguments: Any,
    *,
    latents: tuple[int, ...] = (1, 4, 3, 8, 8),
    lists: tuple[str, ...] = BLOCKS,
    streams: tuple[str, ...] = ONE,
    frames: int = 3,
    **others: Any,
) -> TinyClass:
    return TinyClass(name, config, lists, streams, latents, frames, arguments=arguments, **others)


def image(name: str, config: dict[str, Any], arguments: Any, **others: Any) -> TinyClass:
    others = {"latents": (1, 4, 8, 8), **others}
    return video(name, config, arguments, frames=1, **others)


EMBED: dict[str, Any] = {"streams": ("visual_embed",)}
VIS_AND_AUD: dict[str, Any] = {"streams": ("vis", "aud")}
KANDINSKY: dict[str, Any] = {"lists": VISUAL, "latents": (1, 3, 8, 8, 4)}
OTHER_VIDEOS: dict[str, TinyClass] = {
    "wan, a timestep a token": video(
        "WanTransformer3DModel", WAN, timestep_a_token, lists=("blocks",)
    ),
    "wan, image given": video(
        "WanTransformer3DModel",
        dict(WAN, image_dim=8, added_kv_proj_dim=24),
        image_given,
        lists=("blocks",),
    ),
    "vace": video(
        "WanVACETransformer3DModel",
        dict(WAN, num_layers=4, vace_layers=[0, 2], vace_in_channels=12),
        vace,
        lists=("blocks",),
    ),
    "animate": video(
        "WanAnimateTransformer3DModel",
        ANIMATE,
        animate,
        lists=("blocks",),
        latents=(1, 12, 3, 8, 8),
    ),
    "skyreels, diffusion forcing": video(
        "SkyReelsV2Transformer3DModel",
        dict(WAN, inject_sample_info=True),
        diffusion_forcing,
        lists=("blocks",),
    ),
    "consisid": video(
        "ConsisIDTransformer3DModel",
        CONSISID,
        consisid,
        latents=(1, 4, 4, 8, 8),
        streams=TWO,
        frames=4,
    ),
    "framepack": video(
        "HunyuanVideoFramepackTransformer3DModel",
        FRAMEPACK,
        framepack,
        latents=(1, 4, 3, 4, 4),
        lists=DOUBLE_AND_SINGLE,
        streams=TWO,
        frames=1,
    ),
    "ltx2": video(
        "LTX2VideoTransformer3DModel",
        LTX2,
        ltx2,
        latents=(1, 48, 4),
        streams=("hidden_states", "audio_hidden_states"),
    ),
    "cosmos3": video(
        "Cosmos3OmniTransformer",
        COSMOS3,
        cosmos3,
        latents=(1, 2, 3, 2, 2),
        lists=("layers",),
        streams=("und_seq", "gen_seq"),
        frames=1,
    ),
    "kandinsky5": video(
        "Kandinsky5Transformer3DModel",
        KANDINSKY5,
        kandinsky5,
        streams=("visual_embed",),
        **KANDINSKY,
    ),
    "kandinsky6": video(
        "Kandinsky6Transformer3DModel", KANDINSKY6, kandinsky6, **KANDINSKY, **VIS_AND_AUD
    ),
    "kandinsky6, audio": video(
        "Kandinsky6Transformer3DModel",
        KANDINSKY6,
        kandinsky6_audio,
        streams=("vis", "aud"),
        **KANDINSKY,
    ),
    "kandinsky6, super resolution": video(
        "Kandinsky6SRTransformer3DModel",
        KANDINSKY6_SR,
        super_resolution,
        lists=VISUAL,
        latents=(1, 2, 8, 8, 9),
        frames=2,
    ),
    "anyflow": video(
        "AnyFlowTransformer3DModel",
        ANYFLOW,
        anyflow,
        lists=("blocks",),
        latents=(1, 3, 4, 8, 8),
    ),
    "helios": video(
        "HeliosTransformer3DModel",
        HELIOS,
        helios,
        lists=("blocks",),
        latents=(1, 4, 2, 8, 8),
        frames=1,
    ),
    "minimax": video(
        "MiniMaxH3Transformer3DModel", MINIMAX, minimax, latents=(1, 12, 16), frames=1
    ),
    "motif": video(
        "MotifVideoTransformer3DModel",
        MOTIF,
        motif,
        latents=(1, 33, 3, 4, 4),
        lists=DOUBLE_AND_SINGLE,
        streams=TWO,
    ),
    "motif, no decoder": video(
        "MotifVideoTransformer3DModel",
        dict(MOTIF, num_decoder_layers=0),
        motif,
        latents=(1, 33, 3, 4, 4),
        lists=DOUBLE_AND_SINGLE,
        streams=TWO,
    ),
    "sana, world model": video(
        "SanaWMTransformer3DModel",
        SANA_WM,
        sana_wm,
        lists=("blocks",),
        streams=("x",),
        latents=(1, 4, 3, 4, 4),
    ),
}
OTHER_IMAGES: dict[str, TinyClass] = {
    "sd3": image(
        "SD3Transformer2DModel",
        dict(SD3, dual_attention_layers=(), qk_norm=None),
        sd3,
        streams=TWO[::-1],
    ),
    "sd3.5": image(
        "SD3Transformer2DModel",
        dict(SD3, dual_attention_layers=(0, 1), qk_norm="rms_norm"),
        sd3,
        streams=TWO[::-1],
    ),
    "flux2": image(
        "Flux2Transformer2DModel",
        FLUX2,
        flux2,
        lists=DOUBLE_AND_SINGLE,
        streams=TWO[::-1],
        latents=(1, 16, 4),
        streams_of={"single_transformer_blocks": ONE},
    ),
    "flux3": image(
        "Flux3Transformer2DModel",
        FLUX3,
        flux3,
        lists=("single_transformer_blocks",),
        streams=TWO[::-1],
        latents=(1, 16, 4),
    ),
    "lumina2": image("Lumina2Transformer2DModel", LUMINA2, lumina2, lists=("layers",)),
    "z-image": image(
        "ZImageTransformer2DModel",
        Z_IMAGE,
        z_image,
        lists=("layers",),
        streams=("x",),
        latents=(1, 16, 1, 8, 8),
    ),
    "hunyuan-dit": image("HunyuanDiT2DModel", HUNYUAN_DIT, hunyuan_dit, lists=("blocks",)),
    "hidream": image(
        "HiDreamImageTransformer2DModel",
        HIDREAM,
        hidream,
        lists=("double_stream_blocks", "single_stream_blocks"),
        streams=TWO,
        latents=(1, 4, 16, 16),
        streams_of={"single_stream_blocks": ONE},
    ),
}
