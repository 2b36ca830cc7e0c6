"""Tiny random models of the classes that need special code in their adapter or special inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.support.tiny_models.description import noise
from tests.support.tiny_models.tiny_class import TinyClass, tiny_classes
from tests.support.tiny_models.usual_inputs import rising_time, timestep, unit_time, usual


def timestep_a_token(latents: Tensor, step: int) -> dict[str, Any]:
    return usual(latents, step, timestep=timestep(step)[:, None].expand(1, 3 * 16))


def image_given(latents: Tensor, step: int) -> dict[str, Any]:
    text, image = noise(1, 512, 16, seed=1), noise(1, 5, 8, seed=2)
    return usual(latents, step, encoder_hidden_states=text, encoder_hidden_states_image=image)


def vace(latents: Tensor, step: int) -> dict[str, Any]:
    return usual(latents, step, control_hidden_states=noise(1, 12, 3, 8, 8, seed=2))


def animate(latents: Tensor, step: int) -> dict[str, Any]:
    return usual(
        latents,
        step,
        encoder_hidden_states_image=noise(1, 5, 16, seed=2),
        pose_hidden_states=noise(1, 4, 2, 8, 8, seed=3),
        face_pixel_values=noise(1, 3, 5, 16, 16, seed=4),
    )


def diffusion_forcing(latents: Tensor, step: int) -> dict[str, Any]:
    times = timestep(step)[:, None] + torch.tensor([[0, 30, 60]])
    return usual(latents, step, timestep=times, enable_diffusion_forcing=True, fps=[0])


def consisid(latents: Tensor, step: int) -> dict[str, Any]:
    face = {"id_vit_hidden": [torch.ones(1, 2, 2)], "id_cond": torch.ones(1, 2)}
    return usual(latents, step, encoder_hidden_states=noise(1, 6, 8, seed=1), **face)


def framepack(latents: Tensor, step: int) -> dict[str, Any]:
    return usual(
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
    return usual(
        latents,
        step,
        timestep=timestep(step).float(),
        audio_hidden_states=noise(1, 9, 4, seed=7 + step),
        audio_encoder_hidden_states=noise(1, 6, 16, seed=2),
        encoder_attention_mask=torch.ones(1, 6).bool(),
        num_frames=3,
        height=4,
        width=4,
        audio_num_frames=9,
        fps=25.0,
    )


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
    return usual(latents, step, pooled_projections=pooled, timestep=timestep(step).float())


def kandinsky6_audio(latents: Tensor, step: int) -> dict[str, Any]:
    return {**kandinsky6(latents, step), "audio_hidden_states": noise(1, 7, 5, seed=3 + step)}


def super_resolution(latents: Tensor, step: int) -> dict[str, Any]:
    return {"hidden_states": latents, "timestep": timestep(step).float()}


def anyflow(latents: Tensor, step: int) -> dict[str, Any]:
    times = torch.full((1, 3), 930.0 - 30 * step)
    return usual(latents, step, timestep=times, r_timestep=times - 30)


def helios(latents: Tensor, step: int) -> dict[str, Any]:
    return usual(
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
    """Return one sequence of 4 rows of text, 6 of audio and 12 of video."""
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


def with_wide_text(latents: Tensor, step: int, **others: Any) -> dict[str, Any]:
    return usual(latents, step, encoder_hidden_states=noise(1, 6, 32, seed=1), **others)


def sana_wm(latents: Tensor, step: int) -> dict[str, Any]:
    camera = torch.zeros(1, 3, 20)
    camera[..., :16] = torch.eye(4).flatten()
    camera[..., 16:] = torch.tensor([4.0, 4.0, 2.0, 2.0])
    return usual(
        latents,
        step,
        timestep=torch.full((1, 1, 3), 930.0 - 30 * step),
        encoder_hidden_states=noise(1, 1, 6, 16, seed=1),
        mask=torch.ones(1, 1, 1, 6),
        camera_conditions=camera,
        chunk_plucker=noise(1, 6, 3, 4, 4, seed=3),
    )


def sd3(latents: Tensor, step: int) -> dict[str, Any]:
    return usual(latents, step, pooled_projections=noise(1, 32, seed=2))


def grid(*sizes: int) -> Tensor:
    """Return the positions of a grid, `[product of sizes, number of sizes]`."""
    return torch.cartesian_prod(*(torch.arange(size) for size in sizes))


def flux2(latents: Tensor, step: int) -> dict[str, Any]:
    ids = {"img_ids": grid(1, 4, 4, 1)[None], "txt_ids": grid(1, 1, 1, 6)[None]}
    return with_wide_text(latents, step, timestep=unit_time(step), guidance=torch.ones(1), **ids)


def flux3(latents: Tensor, step: int) -> dict[str, Any]:
    ids = {"img_ids": grid(1, 4, 4, 1).float(), "txt_ids": grid(1, 1, 1, 6).float()}
    return with_wide_text(latents, step, timestep=unit_time(step), **ids)


def lumina2(latents: Tensor, step: int) -> dict[str, Any]:
    mask = torch.ones(1, 6, dtype=torch.bool)
    return with_wide_text(latents, step, timestep=rising_time(step), encoder_attention_mask=mask)


def z_image(latents: Tensor, step: int) -> dict[str, Any]:
    return {"x": list(latents), "t": rising_time(step), "cap_feats": [noise(6, 16, seed=1)]}


def hunyuan_dit(latents: Tensor, step: int) -> dict[str, Any]:
    return usual(
        latents,
        step,
        encoder_hidden_states=noise(1, 4, 8, seed=1),
        text_embedding_mask=torch.ones(1, 4),
        encoder_hidden_states_t5=noise(1, 4, 8, seed=2),
        text_embedding_mask_t5=torch.ones(1, 4),
        timestep=timestep(step).float(),
        image_meta_size=torch.tensor([[1024.0, 1024, 16, 16, 0, 0]]),
        style=torch.zeros(1, dtype=torch.long),
        image_rotary_emb=[torch.ones(1, 8), torch.zeros(1, 8)],
    )


def hidream(latents: Tensor, step: int) -> dict[str, Any]:
    return {
        "hidden_states": latents,
        "encoder_hidden_states_t5": noise(1, 6, 8, seed=1),
        "encoder_hidden_states_llama3": noise(2, 1, 6, 4, seed=2),
        "pooled_embeds": noise(1, 8, seed=3),
        "timesteps": timestep(step),
    }


OTHER_VIDEOS: dict[str, TinyClass] = tiny_classes(
    {
        "wan, a timestep a token": timestep_a_token,
        "wan, image given": image_given,
        "vace": vace,
        "animate": animate,
        "skyreels, diffusion forcing": diffusion_forcing,
        "consisid": consisid,
        "framepack": framepack,
        "ltx2": ltx2,
        "cosmos3": cosmos3,
        "kandinsky5": kandinsky5,
        "kandinsky6": kandinsky6,
        "kandinsky6, audio": kandinsky6_audio,
        "kandinsky6, super resolution": super_resolution,
        "anyflow": anyflow,
        "helios": helios,
        "minimax": minimax,
        "motif": with_wide_text,
        "motif, no decoder": with_wide_text,
        "sana, world model": sana_wm,
    }
)
OTHER_IMAGES: dict[str, TinyClass] = tiny_classes(
    {
        "sd3": sd3,
        "sd3.5": sd3,
        "flux2": flux2,
        "flux3": flux3,
        "lumina2": lumina2,
        "z-image": z_image,
        "hunyuan-dit": hunyuan_dit,
        "hidream": hidream,
    }
)
