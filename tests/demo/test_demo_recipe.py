"""Parts of the training recipe that a wrong sign or axis would break without an error."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from bench.demo_model.classifier import crop_to_ink
from bench.demo_model.data import (
    DIGIT_WORDS,
    FRAME_PX,
    MOTION_SPEEDS,
    all_prompts,
    bounce,
    load_digits,
    make_clips,
    render,
)
from bench.demo_model.diffusion import Diffusion, stratified_timesteps
from bench.demo_model.evaluate import motion_per_frame
from bench.demo_model.models import (
    CAPTION_TOKENS,
    LATENT_CHANNELS,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    build_vae,
    encode_frames,
    whiten,
)
from bench.demo_model.precision import MasterWeights, split_weights


@pytest.fixture
def generator() -> Generator:
    return Generator().manual_seed(0)


def test_bounce_reflects_at_both_walls() -> None:
    path = bounce(torch.tensor([-1.0, 0.0, 9.0, 10.0, 12.0, 21.0]), torch.tensor(10.0))
    assert path.tolist() == [1.0, 0.0, 9.0, 10.0, 8.0, 1.0]


def test_render_puts_the_centre_where_asked() -> None:
    frame = render(torch.ones(1, 20, 20), torch.tensor([[[10.0, 20.0]]]), torch.tensor([16.0]))
    rows, columns = torch.nonzero(frame[0, 0] > 0.5, as_tuple=True)
    assert (columns.min(), columns.max()) == (2, 17)
    assert (rows.min(), rows.max()) == (12, 27)


def test_clips_keep_their_speed_and_stay_in_the_frame(generator: Generator) -> None:
    clips = make_clips(load_digits(), 64, generator)
    ink = clips.frames.sum((2, 3))
    # A digit that leaves the frame loses ink; interpolation changes it by less than 5 %.
    assert (ink / ink.mean(1, keepdim=True) - 1).abs().max() < 0.05
    kinds = list(MOTION_SPEEDS.values())
    for video, caption in zip(clips.frames, clips.captions.tolist(), strict=True):
        fastest = kinds[caption % len(kinds)][1]
        # A wall shortens a step; interpolation changes it by a few hundredths of a pixel.
        assert motion_per_frame(video) <= fastest + 0.05


def test_prompts_are_one_token_a_word() -> None:
    tokenizer = build_tokenizer()
    tokens = tokenizer(all_prompts()).input_ids
    assert {len(row) for row in tokens} == {CAPTION_TOKENS}
    assert len({tuple(row) for row in tokens}) == len(DIGIT_WORDS) * len(MOTION_SPEEDS)
    assert tokenizer.unk_token_id not in {token for row in tokens for token in row}


def test_whitening_changes_latents_but_not_reconstructions(generator: Generator) -> None:
    torch.manual_seed(0)
    vae = build_vae()
    rgb = torch.rand(4, 3, FRAME_PX, FRAME_PX, generator=generator) * 2 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(rgb).latent_dist.mode()).sample
        latents = encode_frames(vae, rgb, 1)
        whiten(vae, latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4)))
        white = encode_frames(vae, rgb, 1)
        after = vae.decode(vae.encode(rgb).latent_dist.mode()).sample
    torch.testing.assert_close(
        white.mean((0, 2, 3, 4)), torch.zeros(LATENT_CHANNELS), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        white.std((0, 2, 3, 4)), torch.ones(LATENT_CHANNELS), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_timesteps_fill_every_part(generator: Generator) -> None:
    timesteps = stratified_timesteps(10, generator)
    assert sorted((timesteps // 100).tolist()) == list(range(10))


def test_untrained_transformer_predicts_zero(generator: Generator) -> None:
    """Every residual output starts at zero, so the loss is the mean square of v, near 1."""
    tokenizer = build_tokenizer()
    diffusion = Diffusion.of(build_scheduler(), tokenizer, build_text_encoder(len(tokenizer)))
    latents = torch.randn(4, LATENT_CHANNELS, 16, 8, 8, generator=generator)
    with torch.no_grad():
        loss = diffusion.loss(build_transformer(), latents, torch.arange(4), generator)
    assert loss.item() == pytest.approx(1.0, abs=0.05)


def test_every_weight_has_one_optimizer() -> None:
    transformer = build_transformer()
    groups = split_weights(transformer.named_parameters())
    assert all(weight.ndim == 2 for weight in groups[0])
    assert sum(len(group) for group in groups) == len(list(transformer.parameters()))


def test_masters_average_and_publish() -> None:
    model = torch.nn.Linear(2, 1, bias=False).to(torch.bfloat16)
    weights = MasterWeights(model, ema_decay=0.75)
    start = weights.masters[0].detach().clone()
    model(torch.ones(1, 2, dtype=torch.bfloat16)).sum().backward()
    norm = weights.collect_gradients()
    assert norm.item() == pytest.approx(2**0.5)
    assert weights.masters[0].grad.norm().item() == pytest.approx(1.0, abs=1e-4)
    with torch.no_grad():
        weights.masters[0] += 1.0
    weights.publish()
    torch.testing.assert_close(model.weight.float(), start + 1.0, atol=1e-2, rtol=0)
    torch.testing.assert_close(weights.state_dict()["weight"], start + 0.25)


def test_crop_fills_the_box(generator: Generator) -> None:
    frames = torch.zeros(2, FRAME_PX, FRAME_PX)
    frames[0, 5:15, 20:24] = 1.0
    crops = crop_to_ink(frames)
    rows, _ = torch.nonzero(crops[0, 0] > 0.5, as_tuple=True)
    assert (rows.min(), rows.max()) == (2, 21)
    assert crops[1].abs().max() == 0.0


def test_motion_of_a_moving_square() -> None:
    video = torch.zeros(5, FRAME_PX, FRAME_PX)
    for index in range(5):
        video[index, 3:9, 2 + 2 * index : 8 + 2 * index] = 1.0
    assert motion_per_frame(video) == pytest.approx(2.0, abs=1e-4)
