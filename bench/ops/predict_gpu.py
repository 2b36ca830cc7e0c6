"""Predict the times of GPUs from bytes and launches: computed, not measured on a GPU.

    python -m bench.ops.predict_gpu        # bench/ops/results/predicted_gpu.md and .csv

A kernel takes the time of its bytes at `EFFICIENCY` of the data sheet's bandwidth, but at least
`LAUNCH_US`; kernels run one after another. The contract of our ops defines their bytes. The
launches and bytes of the PyTorch code in `bench/ops/baselines.py` are counted while it runs on meta
tensors of the released size. The prediction ignores caches, although a B200's cache could hold most
of one tensor of Latte. It also ignores the host, which is far ahead of the GPU for tensors of this
size. The host waits only if it reads a value, as the authors' code does for each threshold. Those
reads are counted, not timed.

There are three predictions, with motion regularisation and bfloat16. The first is the decision in a
computed step: distance, motion score, rate; ours and eager also store the metric residual. The
second is the rest of the work that stores residuals in a computed step. The third is a reused step.
The authors published code for Open-Sora only; for other models we apply the same formulation.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.ops import baselines

HEADER = "computed from bytes and launches, not measured: no GPU ran this"

# Bytes a second, from NVIDIA's data sheets: A100 80GB SXM (2,039 GB/s), H100 SXM (3.35 TB/s),
# B200 (8 TB/s, of DGX B200's 64 TB/s for 8).
BANDWIDTH = {"A100": 2.0e12, "H100": 3.35e12, "B200": 8.0e12}
# Assumed: the share of the bandwidth that a streaming kernel reaches.
EFFICIENCY = 0.85
# Assumed: time between the starts of two tiny kernels that are queued in one stream.
LAUNCH_US = 2.5
# From the published codebooks for 30 steps: the authors' code compares with up to five.
THRESHOLDS = [0.08, 0.16, 0.24, 0.32, 0.40]
ITEMSIZE = 2  # bfloat16


@dataclass(frozen=True)
class Model:
    """A released model at one size.

    Args:
        name: model and size of the video.
        latent: frames, height and width of the latent video.
        patch: latent frames, rows and columns that make a token.
        channels: channels of the hidden state.
        batch: videos in one call; 2 if guidance is in the same batch.
        calls: calls of the model in one step; 2 if guidance is another call.
        adds: additions to the video stream in one call, as the authors cache them.
        adds_between: True if the model itself adds something between the blocks. Two passes of
            plain PyTorch over a stream then remove it from the residual.
        text_tokens: tokens of a second stream with as many additions; 0 without one.
    """

    name: str
    latent: tuple[int, int, int]
    patch: tuple[int, int, int]
    channels: int
    batch: int
    calls: int
    adds: int
    adds_between: bool = False
    text_tokens: int = 0

    @property
    def frames(self) -> int:
        return self.latent[0] // self.patch[0]

    @property
    def tokens_per_frame(self) -> int:
        return (self.latent[1] // self.patch[1]) * (self.latent[2] // self.patch[2])

    @property
    def tokens(self) -> int:
        return self.frames * self.tokens_per_frame

    @property
    def streams(self) -> list[Tensor]:
        """Return the video stream of one call and the text stream, if any, without data."""
        text = [(1, self.text_tokens)] if self.text_tokens else []
        sizes = [(self.frames, self.tokens_per_frame), *text]
        return [_meta(self.batch, frames, tokens, self.channels) for frames, tokens in sizes]


# Every video autoencoder here encodes 8 x 8 pixels as one latent pixel. Open-Sora's encodes 17
# frames as 5, Wan's and HunyuanVideo's 1 + 4 n frames as 1 + n, and Latte's encodes each frame.
MODELS = (
    # 28 pairs of a spatial and a temporal block. Cached: attention, and cross-attention with MLP.
    Model("Open-Sora 1.2, 51 x 720 x 1280", (51 // 17 * 5, 720 // 8, 1280 // 8), (1, 2, 2),
          channels=1152, batch=2, calls=1, adds=2 * 28 * 2),
    # The same pairs, and an embedding that is added before the first temporal block.
    Model("Latte, 16 x 512 x 512", (16, 512 // 8, 512 // 8), (1, 2, 2),
          channels=1152, batch=2, calls=1, adds=2 * 28 * 2, adds_between=True),
    Model("Wan 14B, 81 x 720 x 1280", ((81 - 1) // 4 + 1, 720 // 8, 1280 // 8), (1, 2, 2),
          channels=5120, batch=1, calls=2, adds=40 * 2),
    # 20 blocks of two streams add attention and MLP; 40 blocks add both at once. Guidance is
    # distilled into the model.
    Model("HunyuanVideo, 129 x 720 x 1280", ((129 - 1) // 4 + 1, 720 // 8, 1280 // 8), (1, 2, 2),
          channels=3072, batch=1, calls=1, adds=20 * 2 + 40, text_tokens=256),
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """The bytes of each kernel in order, and the number of values that the host reads."""

    kernels: tuple[int, ...] = ()
    reads_back: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.kernels + other.kernels, self.reads_back + other.reads_back)

    def __mul__(self, count: int) -> Work:
        return Work(self.kernels * count, self.reads_back * count)

    def milliseconds(self, bandwidth: float) -> float:
        """Return the milliseconds at `bandwidth` bytes a second, without the host's reads."""
        per_byte = 1e3 / (bandwidth * EFFICIENCY)
        return sum(max(LAUNCH_US / 1e3, moved * per_byte) for moved in self.kernels)


class Counter(TorchDispatchMode):
    """A counter of the bytes of every kernel that eager PyTorch would launch.

    An operation reads its tensors and writes its results, each once. A view launches no kernel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[int] = []

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            # copy_ does not read its target.
            reads = args[1:] if function.overloadpacket == torch.ops.aten.copy_ else args
            self.kernels.append(_bytes(reads) + _bytes([result]))
        return result


def count(run: Callable[..., object], *args: object) -> Work:
    """Return the work that a function launches on meta tensors."""
    with Counter() as counter:
        run(*args)
    return Work(tuple(counter.kernels))


def ours(model: Model) -> dict[str, Work]:
    """Return the work of our ops, from the bytes that they read and write."""
    stream_bytes = [stream.nbytes for stream in model.streams]
    decision = Work((3 * stream_bytes[0], 0))  # distance_update: slot and residual; slot. decide.
    store, reused = Work(), Work()
    for size in stream_bytes:
        store += Work((3 * size,)) + Work((3 * size,)) * (2 * model.adds_between)
        reused += Work((3 * size,))
    return _parts(model, decision, store, reused)


def eager(model: Model) -> dict[str, Work]:
    """Return the work of the same maths in eager PyTorch, without reads of the host."""
    video = model.streams[0]
    sums, codebook, scalar = _meta32(model.batch, 5), _meta32(2, 5), _meta32()
    decision = count(baselines.distance_and_motion, video, video)
    decision += count(baselines.decide, sums, codebook, scalar, scalar)
    store, reused = Work(), Work()
    coefficients, flag = _meta32(1), torch.empty(1, dtype=torch.int32, device="meta")
    for stream in model.streams:
        between = count(torch.sub, stream, stream) * (2 * model.adds_between)
        store += between + count(baselines.residual, stream, stream, stream)
        reused += count(baselines.add, stream, stream, coefficients, flag)
    return _parts(model, decision, store, reused)


def authors(model: Model) -> dict[str, Work]:
    """Return the work of the released code: norms, references instead of stores, many additions."""
    video = model.streams[0]
    decision = count(baselines.authors_distance_and_motion, video, video)
    distances = _meta32(2)
    decision += count(baselines.authors_comparisons, distances, THRESHOLDS, 3, _meta32())
    decision += Work(reads_back=len(THRESHOLDS))
    reused = Work()
    for stream in model.streams:
        reused += count(torch.add, stream, stream) * model.adds
    return _parts(model, decision, Work(), reused)


CODES = {"ours": ours, "eager": eager, "authors": authors}


def _parts(model: Model, decision: Work, store: Work, reused: Work) -> dict[str, Work]:
    parts = {"decision": decision, "store": store, "reused step": reused}
    return {name: work * model.calls for name, work in parts.items()}


def _meta(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device="meta")


def _meta32(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def _bytes(values: Sequence[object]) -> int:
    total = 0
    for value in values:
        if isinstance(value, Tensor):
            total += value.numel() * value.itemsize
        elif isinstance(value, list | tuple):
            total += _bytes(value)
    return total


def cache_bytes(model: Model) -> dict[str, int]:
    """Return the bytes that are stored between steps; ours include the slot of the metric."""
    streams = sum(stream.nbytes for stream in model.streams)
    stored = streams + model.streams[0].nbytes
    return {"ours": model.calls * stored, "authors": model.calls * streams * model.adds}


def rows() -> Iterator[dict[str, object]]:
    """Yield one row for each model, part, code and GPU."""
    for model in MODELS:
        for code, predict in CODES.items():
            for part, work in predict(model).items():
                for gpu, bandwidth in BANDWIDTH.items():
                    yield {
                        "model": model.name,
                        "part": part,
                        "code": code,
                        "gpu": gpu,
                        "launches": len(work.kernels),
                        "reads_back": work.reads_back,
                        "gigabytes": f"{sum(work.kernels) / 1e9:.3f}",
                        "ms": f"{work.milliseconds(bandwidth):.4f}",
                        "remark": HEADER,
                    }


def markdown() -> Iterator[str]:
    """Yield the lines of the table: assumptions, models, launches and bytes, and times."""
    yield f"**{HEADER}.**"
    yield ""
    yield (
        f"A kernel takes its bytes at {EFFICIENCY:g} of the data sheet's bandwidth "
        f"({', '.join(f'{gpu} {rate / 1e12:g} TB/s' for gpu, rate in BANDWIDTH.items())}), but at "
        f"least {LAUNCH_US:g} us; both figures are assumptions. bfloat16, motion regularisation. "
        "Times do not include the host's reads of values, for which it waits until the GPU has "
        "caught up. `bench/ops/predict_gpu.py` has the derivation."
    )
    yield ""
    yield "| model | tokens | MB a tensor | calls a step | cache, ours | cache, authors' |"
    yield "|---|---|---|---|---|---|"
    for model in MODELS:
        sizes = {code: f"{size / 1e9:.2f} GB" for code, size in cache_bytes(model).items()}
        yield (
            f"| {model.name} | {model.frames} x {model.tokens_per_frame} = {model.tokens} "
            f"| {model.streams[0].nbytes / 1e6:.0f} | {model.calls} | {sizes['ours']} "
            f"| {sizes['authors']} |"
        )
    yield ""
    yield "Launches and GB moved for one step, with the values that the host reads:"
    yield ""
    yield "| model | part | ours | eager | authors |"
    yield "|---|---|---|---|---|"
    yield from _table(_moved)
    for gpu, bandwidth in BANDWIDTH.items():
        yield ""
        yield f"{gpu}, predicted ms for one step:"
        yield ""
        yield "| model | part | ours | eager | authors |"
        yield "|---|---|---|---|---|"
        yield from _table(lambda work, rate=bandwidth: f"{work.milliseconds(rate):.3g}")


def _table(cell: Callable[[Work], str]) -> Iterator[str]:
    for model in MODELS:
        by_code = [predict(model) for predict in CODES.values()]
        for part in by_code[0]:
            cells = [cell(parts[part]) if parts[part].kernels else "0" for parts in by_code]
            yield f"| {model.name} | {part} | {' | '.join(cells)} |"


def _moved(work: Work) -> str:
    reads = f", {work.reads_back} reads" if work.reads_back else ""
    return f"{len(work.kernels)}, {sum(work.kernels) / 1e9:.3g} GB{reads}"


def write(folder: Path) -> None:
    """Write `predicted_gpu.md` and `predicted_gpu.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predicted_gpu.md").write_text("\n".join([*markdown(), ""]))
    table = list(rows())
    with (folder / "predicted_gpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=here)
    folder = parser.parse_args().out
    write(folder)
    print((folder / "predicted_gpu.md").read_text())


if __name__ == "__main__":
    main()
