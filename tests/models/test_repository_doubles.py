"""Models of other repositories: recognised by what they are, and cached right or refused."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.models import adapter_for
from tests.models import repository_doubles as doubles
from tests.models.repository_doubles import outputs
from tests.support.tiny_models import common_models
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_models.description import noise

STEPS = 9
REUSING: dict[str, Any] = {"codebook": {float("inf"): 3}, "num_inference_steps": STEPS}
SAME_NAME = (
    doubles.AllegroTransformer3DModel,
    doubles.QwenImageTransformer2DModel,
    doubles.CogVideoXTransformer3DModel,
    doubles.WanTransformer3DModel,
    doubles.ComfyFlux,
)
FOUND = {
    doubles.AllegroTransformer3DModel: "transformer_blocks(hidden_states) of 3",
    doubles.QwenImageTransformer2DModel: "transformer_blocks(hidden_states, encoder_hidden_states) "
    "of 3",
    doubles.CogVideoXTransformer3DModel: "transformer_blocks(hidden_states) of 3",
    doubles.WanTransformer3DModel: "blocks(x) of 3",
    doubles.OwnWan: "blocks(x) of 3",
    doubles.Cosmos: "blocks(x_B_T_H_W_D) of 3",
    doubles.CosmosOne: "blocks[0:1](x) of 1 -> blocks[1:2](x) of 1 -> blocks[2:](x) of 1",
    doubles.Hinted: "blocks[0:1](x) of 1 -> blocks[1:](x) of 2",
    doubles.FramesInBatch: "blocks(hidden) of 3",
    doubles.SameBlockTwice: "blocks(hidden) of 4",
    doubles.InPlace: "blocks(x) of 3",
    doubles.ComfyFlux: "double_blocks(img, txt) of 3 -> single_blocks(x) of 3",
}
KINDS = pytest.mark.parametrize("kind", FOUND, ids=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", SAME_NAME, ids=lambda kind: kind.__name__)
def test_a_name_is_no_proof(kind: Any) -> None:
    """The adapter of that name, or structure, reads what the model does not have."""
    assert adapter_for(kind()) is None


@KINDS
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_equal_inputs_give_equal_outputs(kind: Any, mode: Any) -> None:
    """A reused step is off by roundings of the stream only."""
    model = kind().eval()
    with mode():
        plain = outputs(model, 1)[0]
        ak.patch(model, **REUSING)
        found = outputs(model, STEPS)
    summary = ak.summary(model)
    assert summary.found == f"{FOUND[kind]}, by its first forward"
    assert summary.reused_steps
    scale = plain.abs().max()
    assert all((x - plain).abs().max() <= 64 * torch.finfo().eps * scale for x in found)


@KINDS
def test_rate_1_is_bit_equal_and_unpatch_restores_the_model(kind: Any) -> None:
    model = kind().eval()
    plain, before = outputs(model, 4, varied=True), dict(vars(model))
    ak.patch(model, codebook={1.0: 1}, num_inference_steps=4)
    assert all(map(torch.equal, plain, outputs(model, 4, varied=True)))
    ak.unpatch(model)
    assert vars(model) == before


class Swept(doubles.Denoiser):
    """A model that runs its blocks for each half of a batch from the second call on."""

    def __init__(self) -> None:
        super().__init__(doubles.FrameBlock)
        self.calls = 0

    def forward(self, x: Tensor, t: Any) -> Tensor:
        self.calls += 1
        count = 1 if self.calls == 1 else 2
        return torch.cat([self.sweep(part, t) for part in x.chunk(count)])

    def sweep(self, x: Tensor, t: Any) -> Tensor:
        hidden = self.embed(self.patchify(x))
        for block in self.blocks:
            hidden = block(hidden, t)
        return self.unpatchify(self.head(hidden), x)


def test_blocks_that_run_twice_from_the_second_call_on() -> None:
    """One residual would be that of the other half, and the first call does not show the sweeps."""
    model = Swept().eval()
    videos = [noise(2, *doubles.VIDEO[1:], seed=step) for step in range(STEPS)]

    def run() -> list[Tensor]:
        with torch.no_grad():
            return [model(x, torch.ones(1) * (930 - 30 * i)) for i, x in enumerate(videos)]

    plain = run()
    model.calls = 0
    ak.patch(model, **REUSING)
    with pytest.warns(ak.AdaCacheWarning, match="the blocks of blocks ran more than once in one"):
        found = run()
    assert all(map(torch.equal, found, plain))


def test_a_known_class_whose_blocks_run_twice_in_one_forward_call() -> None:
    """The `cfg_skip` of VideoX-Fun runs the halves of a batch one after the other, like this."""
    tiny = TINY["allegro"]
    model = tiny.build()
    own = model.forward

    def halves(hidden_states: Tensor, **others: Any) -> Any:
        parts = hidden_states.chunk(2)
        others = {n: v[:1] if isinstance(v, Tensor) else v for n, v in others.items()}
        return (torch.cat([own(hidden_states=part, **others)[0] for part in parts]),)

    halves.__signature__ = inspect.signature(own)  # type: ignore[attr-defined]
    model.forward = halves
    plain = common_models.denoise(tiny, model, STEPS, batch=2)
    ak.patch(model, **REUSING)
    with pytest.warns(ak.AdaCacheWarning, match="the blocks of transformer_blocks ran more than"):
        found = common_models.denoise(tiny, model, STEPS, batch=2)
    summary = ak.summary(model)
    assert all(map(torch.equal, found, plain)) and not summary.reused_steps
    assert "ran more than once in one forward call" in str(summary.reasons)


@KINDS
def test_motion_of_probed_models(kind: Any) -> None:
    model: nn.Module = kind().eval()
    ak.patch(model, apply_moreg=True, codebook={1e9: 3}, num_inference_steps=STEPS)
    found = outputs(model, STEPS, varied=True)
    assert all(torch.isfinite(x).all() for x in found) and ak.summary(model).reused_steps
