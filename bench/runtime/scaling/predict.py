"""Compute speedups against the number of GPUs: no GPU ran this.

A step of a model takes the time of its operations, of the exchanges of its attention, and of its
final gather. The number of collectives is that of `results/scaling/counts.md`: four all-to-alls for
each attention across shards, and one gather. Our own work comes from `bench/ops/predict_gpu.py`.
`ASSUMED` has every other figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.ops import predict_gpu

HEADER = "computed from counts and data sheets, not measured: no GPU ran this"
GPUS_A_NODE = 8
EXCHANGES = 4  # Queries, keys, values and the attention's output; counted on a CPU.
# Dense bfloat16 operations a second, from NVIDIA's data sheets (A100 and H100 SXM, B200).
PEAK = {"A100": 312e12, "H100": 989e12, "B200": 2250e12}
# Bytes a second that one GPU sends by NVLink: half of the data sheet's total.
NVLINK = {"A100": 300e9, "H100": 450e9, "B200": 900e9}
NETWORK = 50e9  # Bytes a second that one GPU sends to other nodes: 400 Gbit/s a GPU.
# Assumed, not from a data sheet:
OF_PEAK = 0.5
OF_LINK = 0.7
LATENCY = 20e-6  # Seconds before a collective moves bytes.
OUTSIDE = 1e-3  # Seconds a call outside the blocks, the same for any number of GPUs.
STEPS = 50
TEXT_TOKENS = 512
ASSUMED: Mapping[str, str] = {
    "operations": "matrix products only, bfloat16; evenly divided over the GPUs",
    "peak, A100 / H100 / B200": "312 / 989 / 2250 TFLOP/s, of which 50 % are reached",
    "NVLink, each direction": "300 / 450 / 900 GB/s a GPU, of which 70 % are reached",
    "between nodes": "400 Gbit/s a GPU, of which 70 % are reached; 8 GPUs a node",
    "a collective": "20 us and its bytes; not overlapped",
    "inside a node": "Ulysses: 4 all-to-alls for each attention across shards, and a final gather",
    "between nodes, attention": "a ring: keys and values pass all nodes, overlapped with attention",
    "outside the blocks": "1 ms a call, not divided",
    "a reused step": "read x and residual, write x (85 % of the memory's bandwidth), final gather",
    "measured": "also stores and compares the metric residual, and gathers once (20 us) a step",
    "steps": "50; static schedules compute 50 % and 30 %, the measured one 50 %",
    "PAB, Open-Sora": "ranges 2, 4, 6 for spatial, temporal, cross in 48 % of the steps",
    "PAB, others": "ranges 2 and 6 for self- and cross-attention in 75 % of the steps",
    "not modelled": "guidance on other GPUs, the text encoder, the autoencoder, host time, memory",
}


@dataclass(frozen=True)
class Part:
    """Modules of one kind, all of them in one call.

    Args:
        operations: floating-point operations of the modules.
        exchanging: number of modules whose attention is across shards.
        scores: the operations of attention itself, with which a ring overlaps.
        pab_range: PAB runs the modules once in so many steps of its window.
    """

    operations: float
    exchanging: int = 0
    scores: float = 0.0
    pab_range: int = 1


@dataclass(frozen=True)
class Model:
    """A released model at one size.

    Args:
        sizes: tokens, channels, batch and calls.
        parts: the modules of one call.
        gathered: bytes of the whole output of a call, before it is put together.
        pab_window: share of the steps in PAB's window.
    """

    sizes: predict_gpu.Model
    parts: tuple[Part, ...]
    gathered: int
    pab_window: float

    @property
    def stream(self) -> int:
        """Return the bytes of the whole video stream of a call."""
        return self.sizes.streams[0].nbytes


def _linear(rows: int, inputs: int, outputs: int) -> float:
    return 2.0 * rows * inputs * outputs


def _open_sora(sizes: predict_gpu.Model) -> Model:
    rows, width, pairs = sizes.batch * sizes.tokens, sizes.channels, 28
    projections = 4 * _linear(rows, width, width)
    parts = []
    for attended, exchanging, count in ((sizes.tokens_per_frame, pairs, 2), (sizes.frames, 0, 4)):
        scores = pairs * 2 * _linear(rows, width, attended)
        parts.append(Part(pairs * projections + scores, exchanging, scores, count))
    # Two products of a row with 300 tokens of text; its keys and values count for nothing.
    cross = 2 * _linear(rows, width, width) + 2 * _linear(rows, width, 300)
    parts.append(Part(2 * pairs * cross, pab_range=6))
    parts.append(Part(2 * pairs * 2 * _linear(rows, width, 4 * width)))
    return Model(sizes, tuple(parts), rows * 4 * 8 * predict_gpu.ITEMSIZE, 0.48)


def _wan(sizes: predict_gpu.Model) -> Model:
    rows, width, blocks = sizes.batch * sizes.tokens, sizes.channels, 40
    scores = blocks * 2 * _linear(rows, width, sizes.tokens)
    own = blocks * 4 * _linear(rows, width, width) + scores
    cross = 2 * _linear(rows, width, width) + 2 * _linear(rows, width, TEXT_TOKENS)
    parts = (
        Part(own, blocks, scores, 2),
        Part(blocks * cross, pab_range=6),
        Part(blocks * 2 * _linear(rows, width, 13824)),
    )
    return Model(sizes, parts, rows * 4 * 16 * predict_gpu.ITEMSIZE, 0.75)


def _hunyuan(sizes: predict_gpu.Model) -> Model:
    tokens, width, blocks = sizes.tokens + sizes.text_tokens, sizes.channels, 60
    rows = sizes.batch * tokens
    scores = blocks * 2 * _linear(rows, width, tokens)
    own = blocks * 4 * _linear(rows, width, width) + scores
    parts = (Part(own, blocks, scores, 2), Part(blocks * 2 * _linear(rows, width, 4 * width)))
    return Model(sizes, parts, rows * 4 * 16 * predict_gpu.ITEMSIZE, 0.75)


def models() -> tuple[Model, ...]:
    """Return the models of the table."""
    makers: Mapping[str, Callable[[predict_gpu.Model], Model]] = {
        "Open-Sora": _open_sora,
        "Wan": _wan,
        "HunyuanVideo": _hunyuan,
    }
    named = {sizes.name.split()[0].rstrip(","): sizes for sizes in predict_gpu.MODELS}
    return tuple(make(named[name]) for name, make in makers.items())


def exchange(sent: float, gpu: str) -> float:
    """Return the seconds of a collective in a node in which a GPU sends `sent` bytes."""
    return LATENCY + sent / (NVLINK[gpu] * OF_LINK)


def part_seconds(model: Model, part: Part, gpu: str, gpus: int) -> float:
    """Return the seconds of the modules of one part in one call."""
    peak = PEAK[gpu] * OF_PEAK * gpus
    seconds = part.operations / peak
    if not part.exchanging or gpus == 1:
        return seconds
    inside, nodes = min(gpus, GPUS_A_NODE), max(1, gpus // GPUS_A_NODE)
    shard = model.stream / gpus
    seconds += part.exchanging * EXCHANGES * exchange(shard * (inside - 1) / inside, gpu)
    ring = part.exchanging * 2 * shard * (nodes - 1) / (NETWORK * OF_LINK)
    return seconds + max(0.0, ring - part.scores / peak)


def gather_seconds(model: Model, gpu: str, gpus: int) -> float:
    """Return the seconds of the final gather of one call."""
    if gpus == 1:
        return 0.0
    shard = model.gathered / gpus
    inside = min(gpus, GPUS_A_NODE)
    between = shard * (gpus - inside) / (NETWORK * OF_LINK)
    return exchange(shard * (inside - 1), gpu) + between


def computed_seconds(model: Model, gpu: str, gpus: int) -> float:
    """Return the seconds of a computed step of the unpatched model."""
    parts = sum(part_seconds(model, part, gpu, gpus) for part in model.parts)
    return model.sizes.calls * (parts + gather_seconds(model, gpu, gpus) + OUTSIDE)


def ours_seconds(model: Model, part: str, gpu: str, gpus: int) -> float:
    """Return the seconds of a part of our work in a step: a kernel has its shard's bytes."""
    work = predict_gpu.ours(model.sizes)[part]
    kernels = tuple(moved // gpus for moved in work.kernels)
    return predict_gpu.Work(kernels).milliseconds(predict_gpu.BANDWIDTH[gpu]) / 1e3


def reused_seconds(model: Model, gpu: str, gpus: int) -> float:
    """Return the seconds of a reused step."""
    calls = model.sizes.calls * (gather_seconds(model, gpu, gpus) + OUTSIDE)
    return calls + ours_seconds(model, "reused step", gpu, gpus)


def static_seconds(model: Model, gpu: str, gpus: int, share: float) -> float:
    """Return the seconds a step, with a share of computed steps."""
    computed = computed_seconds(model, gpu, gpus) + ours_seconds(model, "store", gpu, gpus)
    return share * computed + (1 - share) * reused_seconds(model, gpu, gpus)


def measured_seconds(model: Model, gpu: str, gpus: int, share: float) -> float:
    """Return the seconds a step, if every computed step decides."""
    decision = ours_seconds(model, "decision", gpu, gpus)
    gather = LATENCY * model.sizes.calls if gpus > 1 else 0.0
    return static_seconds(model, gpu, gpus, share) + share * (decision + gather)


def pab_seconds(model: Model, gpu: str, gpus: int) -> float:
    """Return the seconds a step with PAB."""
    saved = sum(
        model.pab_window * (1 - 1 / part.pab_range) * part_seconds(model, part, gpu, gpus)
        for part in model.parts
    )
    return computed_seconds(model, gpu, gpus) - model.sizes.calls * saved


WAYS: Mapping[str, Callable[[Model, str, int], float]] = {
    "unpatched": computed_seconds,
    "PAB": pab_seconds,
    "static, 50 %": lambda model, gpu, gpus: static_seconds(model, gpu, gpus, 0.5),
    "static, 30 %": lambda model, gpu, gpus: static_seconds(model, gpu, gpus, 0.3),
    "measured": lambda model, gpu, gpus: measured_seconds(model, gpu, gpus, 0.5),
}
ALL_GPUS = (1, 2, 4, 8, 16, 32, 64, 128)


def speedups(model: Model, gpu: str, way: str, all_gpus: Sequence[int] = ALL_GPUS) -> list[float]:
    """Return the speedups over the unpatched model on one GPU."""
    base = computed_seconds(model, gpu, 1)
    return [base / WAYS[way](model, gpu, gpus) for gpus in all_gpus]


def markdown() -> str:
    """Return the assumptions and the table of speedups."""
    return "\n".join([*_lines(), ""])


def _lines() -> Iterator[str]:
    yield from ("# Computed speedups", "", f"**{HEADER}.** By `python -m bench.runtime.scaling`.")
    yield from ("", "| assumption | value |", "|---|---|")
    yield from (f"| {name} | {value} |" for name, value in ASSUMED.items())
    yield from ("", "Speedup over the unpatched model on one GPU; more than 8 GPUs are nodes of 8.")
    header = " | ".join(map(str, ALL_GPUS))
    for model in models():
        operations = model.sizes.calls * sum(part.operations for part in model.parts) / 1e15
        yield from ("", f"{model.sizes.name}, {operations:.3g} PFLOP a step:", "")
        yield f"| GPU | way | {header} |"
        yield "|---|---|" + "---|" * len(ALL_GPUS)
        for gpu in PEAK:
            for way in WAYS:
                cells = [f"{speedup:.2f}" for speedup in speedups(model, gpu, way)]
                yield f"| {gpu} | {way} | {' | '.join(cells)} |"
