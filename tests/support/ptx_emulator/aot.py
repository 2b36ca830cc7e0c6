"""Ahead-of-time compilation of Triton kernels, and facts from the machine code.

No GPU is needed. The tools (ptxas, cuobjdump, nvdisasm) come with Triton.
"""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from .machine import Kernel, load_kernel

TARGETS = {f"sm_{arch}": GPUTarget("cuda", arch, 32) for arch in (80, 86, 89, 90, 100, 120)}
TARGETS["gfx942"] = GPUTarget("hip", "gfx942", 64)

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

SASS_OPCODE = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)
SASS_WIDTH = re.compile(r"\.(U?8|S8|U?16|S16|64|128|256)(?:\.|$)")
AMD_ACCESS = re.compile(r"\b(?:buffer|global)_(load|store)_(\w+)")
AMD_BITS = {
    "ubyte": 8,
    "sbyte": 8,
    "byte": 8,
    "ushort": 16,
    "sshort": 16,
    "short": 16,
    "dword": 32,
    "dwordx2": 64,
    "dwordx3": 96,
    "dwordx4": 128,
}


@dataclass(frozen=True)
class Resources:
    """The resources of a thread and of a program of a compiled kernel."""

    registers: int
    """Vector registers of a thread."""
    shared: int
    """Bytes of shared memory of a program; from sm_90 on with the 1024 that the system takes."""
    spilled: int
    """NVIDIA: bytes of stack and local memory of a thread. AMD: registers spilled."""
    scalar_registers: int = 0
    """AMD only."""


@dataclass(frozen=True)
class Accesses:
    """The instructions that access global memory, counted by the bits of a lane's access."""

    loads: Counter[int]
    stores: Counter[int]


@dataclass(frozen=True)
class Compiled:
    """A kernel compiled for one target."""

    target: str
    num_warps: int
    dynamic_shared: int
    asm: Mapping[str, Any] = field(repr=False)

    @property
    def ptx(self) -> str:
        """Return the PTX (NVIDIA)."""
        return self.asm["ptx"]

    @property
    def kernel(self) -> Kernel:
        """Return the kernel for the emulator (NVIDIA)."""
        return load_kernel(self.ptx)

    @cached_property
    def sass(self) -> str:
        """Return the machine code as text (NVIDIA)."""
        return _inspect(self.asm["cubin"], "nvdisasm", "-c")

    @cached_property
    def opcodes(self) -> Counter[str]:
        """Count machine instructions by full name, such as LDG.E.128 (NVIDIA)."""
        return Counter(SASS_OPCODE.findall(self.sass))

    @cached_property
    def resources(self) -> Resources:
        """Return registers, shared memory and spills."""
        if self._is_amd:
            return self._amd_resources()
        usage = _inspect(self.asm["cubin"], "cuobjdump", "--dump-resource-usage")
        found = dict(re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", usage))
        if "REG" not in found:
            raise RuntimeError(f"no resource usage in: {usage}")
        return Resources(
            registers=int(found["REG"]),
            shared=int(found["SHARED"]) + self.dynamic_shared,
            spilled=int(found["STACK"]) + int(found["LOCAL"]),
        )

    @cached_property
    def global_accesses(self) -> Accesses:
        """Count global loads and stores in the machine code by width."""
        if self._is_amd:
            return self._amd_accesses()
        loads = {n: c for n, c in self.opcodes.items() if n.split(".")[0] == "LDG"}
        stores = {n: c for n, c in self.opcodes.items() if n.split(".")[0] == "STG"}
        return Accesses(_by_width(loads), _by_width(stores))

    @property
    def _is_amd(self) -> bool:
        return "amdgcn" in self.asm

    def _amd_resources(self) -> Resources:
        text = self.asm["amdgcn"]
        names = ("vgpr_count", "sgpr_count", "vgpr_spill_count", "sgpr_spill_count")
        found = {name: _amd_fact(text, name) for name in names}
        return Resources(
            registers=found["vgpr_count"],
            shared=max(_amd_fact(text, "group_segment_fixed_size"), self.dynamic_shared),
            spilled=found["vgpr_spill_count"] + found["sgpr_spill_count"],
            scalar_registers=found["sgpr_count"],
        )

    def _amd_accesses(self) -> Accesses:
        counts = {"load": Counter[int](), "store": Counter[int]()}
        for direction, form in AMD_ACCESS.findall(self.asm["amdgcn"]):
            kind = form.removesuffix("_d16_hi").removesuffix("_d16").removeprefix("lds_")
            if kind in AMD_BITS:
                counts[direction][AMD_BITS[kind]] += 1
            else:
                raise RuntimeError(f"width of global_{direction}_{form} not known")
        return Accesses(counts["load"], counts["store"])


def compile_ahead(
    function: JITFunction[Any],
    signature: Mapping[str, Any],
    target: str,
    *,
    constants: Mapping[str, Any] | None = None,
    divisible: Collection[str] = (),
    **options: Any,
) -> Compiled:
    """Compile a `@triton.jit` function for a target without a device.

    `signature` gives the type of each argument that is not constant, such as "*bf16" or "i32".
    `divisible` names the pointers and integers that are multiples of 16. Triton detects these at a
    launch, and wide accesses depend on them. `options` are the options of a launch: num_warps,
    enable_fp_fusion and others.
    """
    constants = constants or {}
    names = list(function.arg_names)
    unknown = ({*signature} | {*constants} | {*divisible}) - {*names}
    if unknown:
        raise ValueError(f"{function.__name__} has no arguments {sorted(unknown)}")
    source = ASTSource(
        fn=function,
        signature={name: "constexpr" if name in constants else signature[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in divisible},
    )
    compiled = triton.compile(source, target=TARGETS[target], options=options)
    metadata = compiled.metadata
    return Compiled(target, metadata.num_warps, metadata.shared, compiled.asm)


def _inspect(cubin: bytes, tool: str, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(TOOLS / tool), option, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _by_width(opcodes: Mapping[str, int]) -> Counter[int]:
    widths: Counter[int] = Counter()
    for name, count in opcodes.items():
        match = SASS_WIDTH.search(name)
        widths[int(match.group(1).lstrip("US")) if match else 32] += count
    return widths


def _amd_fact(text: str, name: str) -> int:
    match = re.search(rf"\.{name}:?\s+(\d+)", text)
    if match is None:
        raise RuntimeError(f"no .{name} in the assembly")
    return int(match.group(1))
