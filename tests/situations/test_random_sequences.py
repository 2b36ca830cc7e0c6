"""Random sequences of generations that share a patched transformer, against each one alone.

Two pipelines and up to three requests of own loops take turns, in threads, inside of callbacks,
with copies of schedulers. They stop, fail and are repeated, change their prompts, sizes and numbers
of steps. Every finished video equals, bit for bit, that of a freshly patched model alone.

`ADACACHE_SEQUENCES=1000` runs that many sequences, as before a release.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from torch import Tensor, nn

import adacache_kernels as ak
from tests.situations.requests import EVERY_FOURTH, model_alone, prompt, sibling, video
from tests.support.tiny_models.description import noise
from tests.support.tiny_pipelines.latte_and_wan import wan
from tests.support.tiny_pipelines.schedulers import euler

SEQUENCES = int(os.environ.get("ADACACHE_SEQUENCES", "50"))
LENGTH = 8
LONG = 120.0


class Stop(Exception):
    """Stops a pipeline from a callback."""


@dataclass(frozen=True)
class Spec:
    """One video.

    Args:
        seed: of latents and prompts.
        steps: the number of steps.
        width: of the latents.
        changes_at: the step after which the prompt is another one; None: never.
        fails_at: the step whose first call fails once and is repeated; None: none.
        is_pipeline: True for a pipeline of diffusers, False for an own loop.
        named: whether the calls of an own loop name their branches.
    """

    seed: int
    steps: int = 8
    width: int = 8
    changes_at: int | None = None
    fails_at: int | None = None
    is_pipeline: bool = False
    named: bool = True


SPECS = st.builds(
    Spec,
    seed=st.integers(0, 2),
    steps=st.sampled_from([6, 8, 10]),
    width=st.sampled_from([8, 4]),
    changes_at=st.sampled_from([None, None, 3, 4]),
    fails_at=st.sampled_from([None, None, None, 3]),
    named=st.booleans(),
)


def loop(model: nn.Module, spec: Spec, scheduler: Any) -> Iterator[Tensor]:
    """Make a video in a loop of our own; yield the latents after each step."""
    scheduler.set_timesteps(spec.steps)
    latents = noise(1, 4, 3, 8, spec.width, seed=spec.seed)
    texts = {"cond": prompt(spec.seed), "uncond": prompt(100 + spec.seed)}
    for index, t in enumerate(list(scheduler.timesteps)):
        if index == spec.changes_at:
            texts["cond"] = prompt(200 + spec.seed)
        found = {}
        for name, text in texts.items():
            fails = index == spec.fails_at and name == "cond"
            found[name] = _call(model, latents, t, text, name if spec.named else None, fails)
        guided = found["uncond"] + 5 * (found["cond"] - found["uncond"])
        latents = scheduler.step(guided, t, latents, return_dict=False)[0]
        yield latents


def _call(
    model: nn.Module, latents: Tensor, t: Tensor, text: Tensor, name: str | None, fails: bool
) -> Tensor:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    def call() -> Tensor:
        with torch.no_grad():
            if name is None:
                return model(latents, t[None], text, return_dict=False)[0]  # type: ignore[no-any-return]
            with model.cache_context(name):  # type: ignore[operator]
                return model(latents, t[None], text, return_dict=False)[0]  # type: ignore[no-any-return]

    if fails:
        handle = model.proj_out.register_forward_pre_hook(fail)  # type: ignore[union-attr]
        try:
            call()
        except RuntimeError:
            pass
        finally:
            handle.remove()
    return call()


def by_pipeline(pipe: Any, spec: Spec, stop_at: int | None = None, other: Any = None) -> Tensor:
    """Make a video by a pipeline, whose callback stops it or advances another request."""

    def callback(_pipe: Any, index: int, _t: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if index == stop_at:
            raise Stop
        if index == spec.changes_at:
            kwargs["prompt_embeds"] = prompt(200 + spec.seed)
        if other is not None:
            other()
        return kwargs

    return video(
        pipe,
        spec.seed,
        spec.steps,
        width=8 * spec.width,
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    )


class Alone:
    """The videos of a freshly patched model, each made once."""

    def __init__(self) -> None:
        self.model = model_alone()
        self._videos: dict[Spec, tuple[Tensor, bool]] = {}

    def video(self, spec: Spec) -> tuple[Tensor, bool]:
        """Return the video of a spec, and whether steps were reused in it."""
        if spec not in self._videos:
            pipe = wan(transformer=self.model, scheduler=euler(shift=3.0))
            ak.patch(pipe, codebook=EVERY_FOURTH)
            if spec.is_pipeline:
                found = by_pipeline(pipe, spec)
            else:
                *_, found = loop(self.model, spec, euler(shift=3.0))
            self._videos[spec] = found, bool(ak.summary(pipe).reused_steps)
            ak.unpatch(pipe)
        return self._videos[spec]


ALONE = Alone()
COUNTS = {"sequences": 0, "with reuse": 0, "videos": 0}


class Sequences(RuleBasedStateMachine):
    """Generations that share the transformer of one patched pipeline."""

    @initialize(spec=SPECS)
    def begin(self, spec: Spec) -> None:
        self.requests: list[tuple[Spec, Iterator[Tensor], list[Tensor]]] = []
        self.reused = False
        self.finished: list[tuple[Spec, Tensor]] = []
        # Another model lies at other addresses, where sums round otherwise.
        self.model = ALONE.model
        self.pipe = wan(transformer=self.model, scheduler=euler(shift=3.0))
        self.other = sibling(self.pipe)
        ak.patch(self.pipe, codebook=EVERY_FOURTH)
        self.run_a_pipeline(spec, 0)

    def _pipe(self, which: int) -> Any:
        if which == 2:
            return sibling(self.pipe, copy.deepcopy(self.pipe.scheduler))
        return self.other if which else self.pipe

    @rule(spec=SPECS, which=st.integers(0, 2))
    def a_pipeline_runs(self, spec: Spec, which: int) -> None:
        self.run_a_pipeline(spec, which)

    def run_a_pipeline(self, spec: Spec, which: int) -> None:
        """Make a video by a pipeline; a request advances in its callback, if there is one."""
        spec = replace(spec, is_pipeline=True, fails_at=None, named=True)
        advance = self._advance_first if self.requests else None
        self.finished.append((spec, by_pipeline(self._pipe(which), spec, other=advance)))

    @rule(spec=SPECS, which=st.integers(0, 2), step=st.integers(0, 5))
    def stop_a_pipeline(self, spec: Spec, which: int, step: int) -> None:
        with suppress(Stop):
            by_pipeline(self._pipe(which), replace(spec, is_pipeline=True), stop_at=step)

    @rule(spec=SPECS, copied=st.booleans())
    def begin_a_request(self, spec: Spec, copied: bool) -> None:
        if len(self.requests) < 3:
            scheduler = copy.deepcopy(self.other.scheduler) if copied else euler(shift=3.0)
            self.requests.append((spec, loop(self.model, spec, scheduler), []))

    @rule(data=st.data(), steps=st.integers(1, 4), in_thread=st.booleans())
    def advance_a_request(self, data: st.DataObject, steps: int, in_thread: bool) -> None:
        if not self.requests:
            return
        index = data.draw(st.integers(0, len(self.requests) - 1))
        if not in_thread:
            self._advance(index, steps)
            return
        thread = threading.Thread(target=self._advance, args=(index, steps))
        thread.start()
        thread.join(LONG)

    @rule(data=st.data())
    def abandon_a_request(self, data: st.DataObject) -> None:
        if self.requests:
            del self.requests[data.draw(st.integers(0, len(self.requests) - 1))]

    @rule(specs=st.lists(SPECS, min_size=2, max_size=2))
    def run_pipelines_in_threads(self, specs: list[Spec]) -> None:
        specs = [replace(s, is_pipeline=True, fails_at=None, named=True) for s in specs]
        pipes = [self.pipe, self._pipe(2)]
        found: dict[int, Tensor] = {}

        def work(index: int) -> None:
            found[index] = by_pipeline(pipes[index], specs[index])

        threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        self.finished += [(specs[index], found[index]) for index in range(2)]

    def _advance_first(self) -> None:
        if self.requests:
            self._advance(0, 1)

    def _advance(self, index: int, steps: int) -> None:
        spec, request, latents = self.requests[index]
        for _ in range(steps):
            step = next(request, None)
            if step is None:
                self.finished.append((spec, latents[-1]))
                del self.requests[index]
                return
            latents.append(step)

    def teardown(self) -> None:
        for index in reversed(range(len(self.requests))):
            self._advance(index, 100)
        ak.unpatch(self.pipe)
        for spec, found in self.finished:
            expected, has_reused = ALONE.video(spec)
            self.reused |= has_reused
            assert torch.equal(found, expected), spec
        COUNTS["sequences"] += 1
        COUNTS["with reuse"] += self.reused
        COUNTS["videos"] += len(self.finished)


def test_random_sequences() -> None:
    case = Sequences.TestCase()
    case.settings = settings(
        max_examples=SEQUENCES,
        stateful_step_count=LENGTH,
        deadline=None,
        database=None,
        derandomize=SEQUENCES == 50,
        suppress_health_check=list(HealthCheck),
    )
    case.runTest()
    assert COUNTS["sequences"] >= SEQUENCES
    assert 2 * COUNTS["with reuse"] >= COUNTS["sequences"], COUNTS
    print(COUNTS)
