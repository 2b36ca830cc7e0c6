"""No step of a patched model makes the host wait for the device, tested on fake CUDA tensors."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

import adacache_kernels as ak
from adacache_kernels.engine.evidence.conditions import LATENTS, is_time
from adacache_kernels.schedule import AdaCachePolicy
from adacache_kernels.schedule.calibrated_for import identity
from adacache_kernels.schedule.profile import Profile
from tests.support import cuda_tensor_spy as fake_cuda
from tests.support.cuda_tensor_spy import SyncSpy, to_fake_cuda
from tests.support.cuda_tensor_spy.patched import fake_parts
from tests.support.tiny_models.chained_models import IMAGES, VIDEOS
from tests.support.tiny_models.common_models import TINY, Tiny
from tests.support.tiny_pipelines.latte_and_wan import LATTE, WAN
from tests.support.tiny_pipelines.pipeline import TinyPipeline

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(fake_cuda.why_not() is not None, reason=str(fake_cuda.why_not())),
    # The mailbox gets the address of a state; here the address is 0, and a double receives it.
    pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor"),
]

STEPS = 6
LONG = STEPS + 3
"""Calls of a whole generation, and of the next one up to its first reused step."""
SHORT = 3
"""Calls up to the first reused step."""
CHAINED = {**VIDEOS, **IMAGES}
FAMILIES = pytest.mark.parametrize("name", TINY)
SETTINGS: dict[str, dict[str, Any]] = {
    "fast": {},
    "forecast": {"config": "forecast"},
    "a parabola": {"forecast": 2, "correct": True},
    "a schedule": {"schedule": [1, 2, 5]},
    "several locations": {"cache_loc": ("start", "end"), "cache_res": "ca-mlp"},
    "cosine": {"metric": "cosine", "cache_res": "block"},
    "int8": {"cache_dtype": "int8"},
    "fp8": {"cache_dtype": "fp8", "forecast": 1, "measure": "forecast-error"},
}


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="cuda")


def moved(value: Any) -> Any:
    """Return tensors of the same shapes and dtypes on the fake device."""
    if isinstance(value, tuple):
        return tuple(map(moved, value))
    return empty(*value.shape, dtype=value.dtype) if isinstance(value, Tensor) else value


def fake_inputs(tiny: Tiny, batch: int = 1) -> dict[str, Any]:
    """Return the arguments of the forward, all of them on the fake device."""
    return {
        "hidden_states": empty(batch, *tiny.latents),
        "encoder_hidden_states": empty(batch, 6, tiny.text_channels),
        "timestep": empty(batch, dtype=torch.int64),
        "return_dict": False,
        **{name: moved(value) for name, value in tiny.extra(batch).items()},
    }


def generate(
    model: nn.Module,
    inputs: Callable[[], dict[str, Any]],
    prepare: Callable[[nn.Module], Any],
    branches: Sequence[str | None] = (None,),
    calls: int = LONG,
) -> tuple[SyncSpy, ak.Summary | None]:
    """Call a model that `prepare` patches, once a step; return the spy and the summary."""
    spy = SyncSpy()
    with fake_cuda.fake_cuda(), fake_parts(), torch.no_grad():
        prepare(to_fake_cuda(model))
        with spy, noted(spy):
            given = inputs()
            for _ in range(calls):
                for branch in branches:
                    with nullcontext() if branch is None else ak.cache_context(branch):
                        model(**given)
                    given |= of_step(inputs())
        return spy, ak.summary(model) if ak.is_patched(model) else None


def of_step(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that are new in every step; the prompts are made once."""
    return {name: value for name, value in inputs.items() if name in LATENTS or is_time(name)}


@contextmanager
def noted(spy: SyncSpy) -> Iterator[None]:
    """End the run where a value is read, if the spy has recorded that read."""
    try:
        yield
    except (DataDependentOutputException, DynamicOutputShapeException):
        if not spy.waits:
            raise


def never_waits(
    name: str,
    prepare: Callable[[nn.Module], Any],
    branches: Sequence[str | None] = (None,),
    calls: int = LONG,
) -> ak.Summary | None:
    """Run steps in which the host waits for nothing, and return the summary.

    Raises:
        AssertionError: the host waited or read a value; the message names the lines.
    """
    tiny = TINY[name]
    spy, summary = generate(tiny.build(), lambda: fake_inputs(tiny), prepare, branches, calls)
    assert not spy.waits, "the host waits:\n" + "\n".join(map(str, spy.waits))
    return summary


def patch(**settings: Any) -> Callable[[nn.Module], Any]:
    # In so few steps, the presets' codebooks reuse nothing, and then nothing is stored.
    settings = {"codebook": {1e9: 2}, **settings}
    return lambda model: ak.patch(model, num_inference_steps=STEPS, **settings)


def both_ways(summary: ak.Summary | None) -> bool:
    """Return True if steps were computed and steps were reused."""
    return summary is not None and bool(summary.computed_steps and summary.reused_steps)


@FAMILIES
def test_the_models_themselves_do_not_wait(name: str) -> None:
    assert never_waits(name, lambda model: None, calls=1) is None


@pytest.mark.parametrize("name", CHAINED)
def test_models_with_adapters_that_are_data(name: str) -> None:
    tiny = CHAINED[name]

    def inputs() -> dict[str, Any]:
        given = tiny.inputs(torch.empty(tiny.latents), 1)
        return {key: moved(value) for key, value in given.items()} | {"return_dict": False}

    plain, _ = generate(tiny.build(), inputs, lambda model: None, calls=1)
    settings = {"config": "forecast"} if tiny.frames == 1 else {"apply_moreg": True}
    spy, summary = generate(tiny.build(), inputs, patch(**settings))
    assert not [wait for wait in spy.waits if wait.is_ours]
    patched_lines, plain_lines = (
        {(wait.file, wait.line) for wait in each.waits} for each in (spy, plain)
    )
    assert patched_lines == plain_lines, "the class itself waits at these lines"
    # Some classes read a value, which fake tensors do not have. Their run ends in the first step.
    assert both_ways(summary) or plain.waits, name


@FAMILIES
@pytest.mark.parametrize("config", ["fast", "forecast"])
def test_presets_with_motion_regularisation(name: str, config: str) -> None:
    assert both_ways(never_waits(name, patch(config=config, apply_moreg=True)))


@pytest.mark.parametrize(
    ("settings", "name"),
    list(zip(SETTINGS.values(), itertools.cycle(["latte", "cogvideox"]), strict=False)),
    ids=SETTINGS,
)
def test_settings(settings: dict[str, Any], name: str) -> None:
    """The settings are tested on two families in turn: one of two lists, one of two streams."""
    assert both_ways(never_waits(name, patch(**settings)))


def test_the_ops_run_as_fakes_and_no_more_often_than_needed() -> None:
    tiny = TINY["wan"]
    model = tiny.build()
    with fake_cuda.fake_cuda(), fake_parts() as kernels, torch.no_grad():
        patch()(to_fake_cuda(model))
        given = fake_inputs(tiny)
        for _ in range(STEPS):
            model(**given | of_step(fake_inputs(tiny)))
        assert ak.summary(model).computed_steps == [1, 2, 5, 6]
    # Only step 2 can precede a reused step: at step 1 there is nothing to compare with.
    counts = {"distance_update": 4, "decide": 4, "residual_update": 1, "conditional_add": 2}
    assert kernels.calls == counts


@FAMILIES
def test_guidance_in_two_named_calls(name: str) -> None:
    summary = never_waits(name, patch(), branches=("cond", "uncond"))
    assert both_ways(summary) and summary is not None
    assert summary.branches == ["cond", "uncond"]


@pytest.mark.parametrize("name", ["latte", "cogvideox"])
def test_guidance_in_two_counted_calls(name: str) -> None:
    summary = never_waits(name, patch(calls_per_step=2), branches=(None, None))
    assert both_ways(summary) and summary is not None
    assert summary.branches == ["0", "1"]


def test_a_profile() -> None:
    def prepare(model: nn.Module) -> None:
        steps = np.arange(STEPS)
        gram = np.exp(-np.abs(steps[:, None] - steps) / 20.0)
        profile = Profile(identity(model), None, STEPS, gram, {"blocks": gram}, np.ones(STEPS))
        settings: dict[str, Any] = dict(forecast=1, correct=True, computed_steps=4)
        ak.patch(model, profile=profile, num_inference_steps=STEPS, **settings)

    assert both_ways(never_waits("wan", prepare))


def test_residuals_in_host_memory() -> None:
    """Chunks are copied to and from the host, and the host does not wait for the copies."""
    # Four tensors of 4.5 KiB do not fit; one tensor and two chunks on their way do.
    settings: dict[str, Any] = dict(over_budget=("host",), max_cache_bytes=16_000)
    summary = never_waits("wan", patch(calls_per_step=3, **settings), branches=(None,) * 3)
    assert both_ways(summary) and summary is not None
    assert summary.memory.on_host > 0


def test_reading_a_decision_from_the_device_is_recorded() -> None:
    """decision="sync" does so, for debugging."""
    with pytest.raises(AssertionError, match=r"a value read .*mailbox\.py"):
        never_waits("wan", patch(decision="sync"))


@pytest.mark.pipelines
@pytest.mark.parametrize(("tiny", "channels"), [(LATTE, 8), (WAN, 16)], ids=["latte", "wan"])
def test_a_pipeline_waits_at_the_same_lines_as_unpatched(tiny: TinyPipeline, channels: int) -> None:
    """Only schedulers read timesteps, with and without the package."""

    def waits(patched: bool) -> Counter[tuple[str, int]]:
        pipe = tiny.build()
        spy = SyncSpy(answer=lambda x: False if x.dtype == torch.bool else 0)
        with fake_cuda.fake_cuda(), fake_parts():
            to_fake_cuda(pipe.transformer)
            if patched:
                ak.patch(pipe, apply_moreg=True, codebook={1e9: 2})
            text = {
                "prompt_embeds": empty(1, 6, channels),
                "negative_prompt_embeds": empty(1, 6, channels),
            }
            with spy:
                tiny.call(pipe, num_inference_steps=STEPS, **text)
            assert not patched or both_ways(ak.summary(pipe))
        assert all(wait.is_in("diffusers") for wait in spy.waits)
        return Counter((wait.file, wait.line) for wait in spy.waits)

    assert waits(patched=True) == waits(patched=False) != Counter()


def by_if(x: Tensor) -> int:
    return 1 if x.sum() > 0 else 0


def by_event(x: Tensor) -> None:
    event = torch.cuda.Event()
    event.record()
    event.synchronize()


PLANTED: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu", non_blocking=True),
    "if": by_if,
    "tolist": lambda x: x.tolist(),
    "float": lambda x: float(x.sum()),
    "int": lambda x: int(x.sum()),
    "and": lambda x: (x.sum() > 0) and True,
    "nonzero": lambda x: x.nonzero(),
    "equal": lambda x: torch.equal(x, x),
    "masked_select": lambda x: x.masked_select(x > 0),
    "a mask": lambda x: x[x > 0],
    "a mask written": lambda x: x.index_put_((x > 0,), x.sum()),
    "a host index": lambda x: x[torch.zeros(2, dtype=torch.int64)],
    "an index": lambda x: torch.zeros(3)[x.sum().long()],
    "a list": lambda x: torch.tensor([0.5], device=x.device),
    "a blocking copy": lambda x: torch.zeros(2, pin_memory=True).to(x.device),
    "a host tensor": lambda x: torch.zeros(2).to(x.device, non_blocking=True),
    "an element": lambda x: torch.empty(2, device=x.device).__setitem__(0, 0.5),
    "synchronize": lambda x: torch.cuda.synchronize(),
    "an event": by_event,
    "a stream": lambda x: torch.cuda.current_stream().synchronize(),
}
EACH = pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)


def caught(prepare: Callable[[nn.Module], Any]) -> None:
    with pytest.raises(AssertionError, match=r"the host waits:\n.*test_no_sync\.py"):
        never_waits("wan", prepare, calls=SHORT)


@EACH
def test_planted_in_a_block(plant: Callable[[Tensor], Any]) -> None:
    def prepare(model: nn.Module) -> None:
        def spoil(module: nn.Module, args: Any, output: Tensor) -> None:
            plant(output)

        model.blocks[1].register_forward_hook(spoil)
        patch()(model)

    caught(prepare)


@EACH
def test_planted_in_a_policy(
    plant: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = AdaCachePolicy.compute

    def compute(self: AdaCachePolicy, step: int, last: Any) -> bool:
        plant(empty(2))
        return honest(self, step, last)

    monkeypatch.setattr(AdaCachePolicy, "compute", compute)
    caught(patch())


@pytest.mark.parametrize("reading", ["item", "tolist", "int", "float", "if", "cpu"])
def test_reading_a_timestep_is_recorded(reading: str) -> None:
    """A hook on the model's arguments reads it, in computed and in reused steps."""

    def prepare(model: nn.Module) -> None:
        patch()(model)

        def spoil(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            PLANTED[reading](kwargs["timestep"])

        model.register_forward_pre_hook(spoil, with_kwargs=True)

    caught(prepare)


@pytest.mark.parametrize(
    "harmless",
    [
        lambda x: x.sum() + 1,
        lambda x: torch.where(x > 0, x, 0.0),
        lambda x: torch.zeros(2, device=x.device).fill_(0.5),
        lambda x: x.__setitem__(x > 0, 0.5),
        lambda x: torch.zeros(2, pin_memory=True).to(x.device, non_blocking=True),
        lambda x: torch.zeros(2, pin_memory=True).copy_(x.view(-1)[:2], non_blocking=True),
        lambda x: torch.cuda.current_stream().record_event().query(),
        lambda x: torch.zeros(2).sum().item,
    ],
)
def test_operations_that_do_not_wait_are_not_recorded(harmless: Callable[[Tensor], Any]) -> None:
    with fake_cuda.fake_cuda(), SyncSpy() as spy:
        harmless(empty(3))
    assert spy.waits == []


def test_a_wait_names_its_line_and_its_package() -> None:
    with fake_cuda.fake_cuda(), SyncSpy() as spy:
        by_event(empty(2))
    (wait,) = spy.waits
    assert (wait.file, wait.what) == (__file__, "Event.synchronize")
    assert wait.line == by_event.__code__.co_firstlineno + 3
    assert not wait.is_ours and not wait.is_in("diffusers")
