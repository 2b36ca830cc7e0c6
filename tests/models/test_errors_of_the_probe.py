"""A model that cannot be read is no longer patched, and one clear error says why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import adacache_kernels as ak
from tests.models.unknown_models import REUSING, Model, run
from tests.support.tiny_models.description import noise


def fails_once(model: Model, match: str, **settings: Any) -> ValueError:
    """Patch the model; check that the first call fails, and that nothing is left of the patch."""
    before = dict(vars(model))
    ak.patch(model, **{**REUSING, **settings})
    with pytest.raises(ValueError, match=match) as raised, torch.no_grad():
        model(noise(1, 6, 4), torch.ones(1))
    assert vars(model) == before and not ak.is_patched(model)
    return raised.value


@pytest.mark.parametrize(
    "place",
    [
        "probe.observed_list.ObservedList.before",
        "probe.observed_list.ObservedList.after",
        "probe.observed_attention.AttentionWatch.watching",
        "probe.first_forward.Probe.lists",
        "probe.first_forward.Probe.adapter",
        "probe.first_forward.video_layout",
    ],
)
@pytest.mark.parametrize("error", [KeyError, AttributeError, RuntimeError, ValueError])
def test_an_error_of_this_package(place: str, error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what was expected, and advises nothing that would not help."""
    model = Model().eval()
    plain = run(model, 1)[0]
    # The package recognises its own code by the file, so the error has to come from such a file.
    code = compile("raise error('lost')", ak.__file__, "exec")

    def fail(*_: Any, **__: Any) -> None:
        exec(code, {"error": error})

    with monkeypatch.context() as patched:
        patched.setattr(f"adacache_kernels.models.{place}", fail)
        raised = fails_once(model, r"Model cannot be cached: its blocks could not be read")
    assert "expected a forward that runs the modules of a list" in str(raised)
    assert "blocks=" not in str(raised)
    assert torch.equal(run(model, 1)[0], plain)


class OutOfMemory(Model):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        super().run(x, t)
        raise torch.OutOfMemoryError("CUDA out of memory")


class Broken(Model):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        super().run(x, t)
        return x + {}["missing"]


@pytest.mark.parametrize(
    ("kind", "error"), [(OutOfMemory, torch.OutOfMemoryError), (Broken, KeyError)]
)
def test_an_error_of_the_model_is_passed_on(kind: type[Model], error: Any) -> None:
    model = kind().eval()
    ak.patch(model, **REUSING)
    with pytest.raises(error), torch.no_grad():
        model(noise(1, 6, 4), torch.ones(1))
    assert ak.is_patched(model)
    ak.unpatch(model)


class NeedsItsList(Model):
    """A model that uses its list as an `nn.ModuleList`."""

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for _, layer in self.layers.named_children():
            x = layer(x, t)
        return x


class NeedsItsBlocks(Model):
    """A model that calls a block by its class."""

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer + x
        return x


@pytest.mark.parametrize("kind", [NeedsItsList, NeedsItsBlocks])
def test_a_model_that_needs_its_own_list(kind: type[Model]) -> None:
    model = kind().eval()
    fails_once(model, f"{kind.__name__} cannot be cached: its blocks could not be read")


def test_settings_that_do_not_fit_the_blocks() -> None:
    fails_once(Model().eval(), "cache_res='t-attn': Model has 'block'", cache_res="t-attn")
