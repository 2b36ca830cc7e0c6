"""A calibration that was killed, or that ran out of disk, goes on where it was."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adacache_kernels as ak
from adacache_kernels import Calibration, calibrate
from adacache_kernels.calibration import checkpoint as module
from adacache_kernels.calibration import timed_runs
from adacache_kernels.calibration.checkpoint import Checkpoint, Measurement
from tests.support.tiny_calibration import STEPS, TINY_WAN, denoising, fixed_seconds
from tests.support.tiny_pipelines.latte_and_wan import latte, run_latte

pytestmark = pytest.mark.usefixtures("seconds")
SETTINGS: dict[str, Any] = dict(
    trials=1, rounds=2, num_inference_steps=STEPS, target_speedup=2.0, held_out=[3]
)


MODEL = TINY_WAN.build()
"""One model for all: another one lies at other addresses, where sums round otherwise."""


class Counted:
    """A function from a seed to an outcome that does something at its n-th call."""

    def __init__(self, at: int = 0, act: Callable[[], Any] = lambda: None) -> None:
        self.model = MODEL
        self.count, self._at, self._act = 0, at, act
        self._run = denoising(self.model)

    def __call__(self, seed: int) -> Any:
        self.count += 1
        if self.count == self._at:
            self._act()
        return self._run(seed)


def run(generate: Counted, folder: Path | None, **changes: Any) -> Calibration:
    cases = changes.pop("cases", range(3))
    return calibrate(generate.model, cases, generate, checkpoint=folder, **(SETTINGS | changes))


def recalled(stored: Checkpoint, key: str, measure: Callable[[], Measurement]) -> Measurement:
    """Return the next measurement."""
    (found,) = stored.recall_each([(key, measure)])
    return found


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, Any], int]:
    """Return a calibration that was not interrupted, and its number of generations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timed_runs, "timed_forwards", fixed_seconds)
        generate = Counted()
        return run(generate, None).to_dict(), generate.count


def killed(folder: Path, at: int) -> None:
    timed_runs.timed_forwards = fixed_seconds  # type: ignore[assignment]
    run(Counted(at, lambda: os.kill(os.getpid(), signal.SIGKILL)), folder)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_killed_calibration_goes_on(whole: tuple[dict[str, Any], int], tmp_path: Path) -> None:
    expected, count = whole
    folder, done = tmp_path / "out.json.partial", 0
    for at in (1, 3, 4, count // 2):
        process = multiprocessing.get_context("fork").Process(target=killed, args=(folder, at))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        assert len(list(folder.glob("*.npz"))) >= done
        done = len(list(folder.glob("*.npz")))
    generate = Counted()
    assert run(generate, folder).to_dict() == expected
    # Each unpatched generation with its counterpart is one measurement, and the first case is
    # generated again.
    assert done >= 4 and generate.count <= count - done + 1


class Interrupted(BaseException):
    """Ends a generation."""


@pytest.mark.parametrize("kind", ["profile", "codebook"])
def test_it_may_be_interrupted_at_every_generation(kind: str, tmp_path: Path) -> None:
    expected = run(Counted(), None, kind=kind).to_dict()

    def interrupt() -> None:
        raise Interrupted

    runs = 0
    while True:
        # The second generation of a run: the first one proves that the pipeline is the same.
        generate = Counted(3 if runs == 0 else 4, interrupt)
        runs += 1
        try:
            found = run(generate, tmp_path / "it", kind=kind)
            break
        except Interrupted:
            assert not ak.is_patched(generate.model)
    assert found.to_dict() == expected and runs > 3
    again = Counted()
    assert run(again, tmp_path / "it", kind=kind).to_dict() == expected
    assert again.count == 1


def test_a_full_disk_is_an_error_and_nothing_is_lost(
    whole: tuple[dict[str, Any], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, count = whole
    left = 5
    write = module.write_whole

    def full(path: Path, content: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, f"cannot write {path}: No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_whole", full)
        with pytest.raises(OSError, match="No space left"):
            run(Counted(), tmp_path / "it")
    generate = Counted()
    assert run(generate, tmp_path / "it").to_dict() == expected
    assert generate.count <= count - 3


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"target_speedup": 1.5}, "target"),
        ({"target_speedup": None, "target_psnr": 30.0}, "target"),
        ({"kind": "codebook"}, "kind"),
        ({"cases": range(1, 4), "held_out": [5]}, "cases"),
        ({"held_out": [4]}, "held_out"),
        ({"trials": 2}, "trials"),
        ({"rounds": 3}, "rounds"),
        ({"refine": 1}, "refine"),
        ({"seed": 1}, "seed"),
        ({"peak": 2.0}, "peak"),
        ({"correct": False}, "settings"),
    ],
)
def test_another_request_is_refused(change: dict[str, Any], name: str, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        run(Counted(2, interrupt), tmp_path / "it")
    generate = Counted()
    with pytest.raises(ValueError, match=f"another calibration, which differs in .*{name}.*remove"):
        run(generate, tmp_path / "it", **change)
    assert generate.count == 0


def test_another_model_or_pipeline_is_refused(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        run(Counted(2, interrupt), tmp_path / "it")
    other = Counted()
    other.model = TINY_WAN.build()
    other.model.register_to_config(num_layers=30)
    with pytest.raises(ValueError, match="differs in model"):
        run(other, tmp_path / "it")
    other = Counted()
    original = other._run
    other._run = lambda seed: original(seed + 1)
    with pytest.raises(ValueError, match="has another outcome of 0 than this pipeline"):
        run(other, tmp_path / "it")


def test_another_number_of_steps_is_refused(tmp_path: Path) -> None:
    pipe = latte()

    def of_steps(steps: int, last: int) -> Calibration:
        def generate(seed: int) -> Any:
            if seed == last:
                raise Interrupted
            noise = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
            return torch.sigmoid(run_latte(pipe, steps, latents=noise))

        folder = tmp_path / "it"
        return calibrate(pipe, range(4), generate, target_speedup=1.5, checkpoint=folder)

    with pytest.raises(Interrupted):
        of_steps(8, last=3)
    with pytest.raises(ValueError, match=r"is of 8 steps and \d took 6; repeat the request"):
        of_steps(6, last=-1)


def test_a_profile_goes_on(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise Interrupted

    def profile(generate: Counted, folder: Path | None, **changes: Any) -> dict[str, Any]:
        arguments = {"trials": 2, "num_inference_steps": STEPS} | changes
        return ak.make_profile(
            generate.model, range(2), generate, checkpoint=folder, **arguments
        ).to_dict()

    whole = Counted()
    expected = profile(whole, None)
    with pytest.raises(Interrupted):
        profile(Counted(5, interrupt), tmp_path / "it")
    with pytest.raises(ValueError, match="differs in trials"):
        profile(Counted(), tmp_path / "it", trials=3)
    generate = Counted()
    assert profile(generate, tmp_path / "it") == expected
    assert generate.count == whole.count - 4 + 1


def test_measurements_are_stored_exactly(tmp_path: Path) -> None:
    values = {"a": 0.1 + 0.2, "b": [1, None, "\u00e9"]}
    arrays = {"x/y": np.array([np.nan, 1e-300]), "text": np.ones((2, 3), np.float32)}
    first = Checkpoint(tmp_path / "it", {"of": 1})
    assert not first.is_resumed
    recalled(first, "key", lambda: Measurement(values, arrays))
    again = Checkpoint(tmp_path / "it", {"of": 1})
    assert again.is_resumed
    found = recalled(again, "key", lambda: pytest.fail("measured"))
    assert found.values == values and found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)
    assert not again.is_resumed
    assert recalled(Checkpoint(None, {}), "key", lambda: Measurement(values)).values == values


def test_a_measurement_with_another_key_or_a_broken_file_is_made_again(tmp_path: Path) -> None:
    made: list[str] = []

    def measure(key: str) -> float:
        def make() -> Measurement:
            made.append(key)
            return Measurement({"it": len(made)})

        return float(recalled(stored, key, make).values["it"])

    stored = Checkpoint(tmp_path / "it", {})
    assert [measure(key) for key in "abc"] == [1, 2, 3]
    stored = Checkpoint(tmp_path / "it", {})
    assert [measure(key) for key in "axc"] == [1, 4, 3]
    for content in (b"", b"PK", (tmp_path / "it" / "000000.npz").read_bytes()[:-9], b"\0" * 99):
        (tmp_path / "it" / "000000.npz").write_bytes(content)
        stored = Checkpoint(tmp_path / "it", {})
        assert [measure("a"), measure("x")] == [len(made), 4]
    assert made == [*"abcx", *"aaaa"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"a": NaN}'])
def test_a_broken_request_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(text)
    with pytest.raises(ValueError, match=f"^{tmp_path}.*remove the folder to begin again"):
        Checkpoint(tmp_path, {"a": 1})


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    with pytest.raises(ValueError, match="is no checkpoint of a calibration"):
        Checkpoint(tmp_path, {})
    with pytest.raises(OSError, match=r"photo\.png"):
        Checkpoint(tmp_path / "photo.png", {})
    with pytest.raises(OSError, match="none"):
        Checkpoint(tmp_path / "none" / "it", {})
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
