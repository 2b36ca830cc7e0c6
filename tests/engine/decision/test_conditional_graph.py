"""Conditional graphs in Python on the driver stub; every kernel in them is PTX.

csrc/graph/conditional_graph.hpp lists the invariants G1 to G5.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import ROOT
from tests.support.driver_scripts import Run, elementwise_kernel, script_runner

KERNELS = """
.version 8.3
.target sm_80
.address_size 64

// flag = (values[step] > 0.5), step += 1
.visible .entry choose(.param .u64 values, .param .u64 step, .param .u64 flag)
{
  .reg .pred %p<2>;
  .reg .b32 %r<4>;
  .reg .f32 %f<2>;
  .reg .b64 %rd<6>;
  ld.param.u64 %rd1, [values];
  ld.param.u64 %rd2, [step];
  ld.param.u64 %rd3, [flag];
  ld.global.u32 %r1, [%rd2];
  mul.wide.u32 %rd4, %r1, 4;
  add.s64 %rd5, %rd1, %rd4;
  ld.global.f32 %f1, [%rd5];
  setp.gt.f32 %p1, %f1, 0f3F000000;
  selp.b32 %r2, 1, 0, %p1;
  st.global.u32 [%rd3], %r2;
  add.s32 %r3, %r1, 1;
  st.global.u32 [%rd2], %r3;
  ret;
}
"""
KERNELS += elementwise_kernel("taken", "fma.rn.f32 %f2, %f1, 0f40000000, 0f3F800000;")  # 2 * x + 1
KERNELS += elementwise_kernel("otherwise", "mul.rn.f32 %f2, %f1, 0f3F000000;")  # 0.5 * x

START = f"""
kernels = {{name: device.kernel({KERNELS!r}, name) for name in ("choose", "taken", "otherwise")}}

def capture(name, threads, *arrays):
    with device.captured() as (stream, graphs):
        device.launch(kernels[name], stream, threads, *arrays)
    return graphs[0]

def destroy(*graphs):
    for graph in graphs:
        device.call("cuGraphDestroy", ctypes.c_void_p(graph))

def error(kind, call, *arguments):
    try:
        call(*arguments)
    except kind as caught:
        assert type(caught) is kind, type(caught)
        return str(caught)
    raise AssertionError("nothing was raised")

flag, x = device.array([0], "int32"), device.array([1] * 32, "float32")
taken, otherwise = capture("taken", 32, x), capture("otherwise", 32, x)
"""

END = """
for kind in (b"graphs", b"execs", b"events"):
    assert device.driver.fakecuda_live(kind) == 0, kind
assert device.driver.fakecuda_live(b"modules") == len(kernels)
"""


@pytest.fixture
def run(driver: Path) -> Run:
    """Return a function that runs a script on the driver stub."""
    return script_runner(driver, START, END)


@pytest.mark.parametrize("pace", ["fast", "slow", "random:1", "random:2"])
def test_branches_of_fifty_launches(run: Run, pace: str) -> None:
    """G1, G3, G4: a kernel of the graph computes the flag, and nothing waits."""
    code = """
chance = random.Random(5)
values = device.array([chance.random() for _ in range(50)], "float32")
step, stream = device.array([0], "int32"), device.stream()
before = capture("choose", 1, values, step, flag)
graph = native.ConditionalGraph(0, before, taken, otherwise, flag.ctypes.data)
destroy(before, taken, otherwise)
waits = device.driver.fakecuda_waits()
for _ in range(50):
    graph.launch(stream)
assert device.driver.fakecuda_waits() == waits
device.synchronize(stream)
expected, ran = np.float32(1), []
for value in values:
    expected = 2 * expected + 1 if value > 0.5 else expected / 2
    ran += ["choose", "set_condition", "taken" if value > 0.5 else "otherwise"]
assert 10 < ran.count("taken") < 40 and step[0] == 50
assert device.ran == ran
assert (x == np.float32(expected)).all(), (x, expected)
del graph
"""
    run(code, PACE=pace)


def test_without_the_optional_graphs(run: Run) -> None:
    code = """
stream = device.stream()
graph = native.ConditionalGraph(0, 0, taken, 0, flag.ctypes.data)
for value, expected in ((0, 1), (1, 3), (-7, 7), (0, 7), (256, 15)):
    flag[0] = value
    graph.launch(stream)
    device.synchronize(stream)
    assert (x == expected).all(), (value, x)
del graph
destroy(taken, otherwise)
"""
    run(code)


def test_wrong_arguments_are_refused(run: Run) -> None:
    """G2, G5"""
    code = """
make, where = native.ConditionalGraph, flag.ctypes.data
assert "the graph to take is 0" in error(ValueError, make, 0, 0, 0, otherwise, where)
assert "the flag is 0" in error(ValueError, make, 0, 0, taken, otherwise, 0)
assert "no CUDA device 1" in error(native.ArenaError, make, 1, 0, taken, otherwise, where)
device.driver.fakecuda_set(b"VERSION", b"12040")
message = error(native.ArenaError, make, 0, 0, taken, otherwise, where)
assert "is of version 12.4; decision='graph' needs a CUDA driver of 12.8 or newer" in message
device.driver.fakecuda_set(b"VERSION", None)
device.driver.fakecuda_set(b"FAIL", b"cuGraphAddNode:1=801")
message = error(native.ArenaError, make, 0, 0, taken, otherwise, where)
assert message == "cuGraphAddNode failed: CUDA_ERROR_NOT_SUPPORTED (801)", message
device.driver.fakecuda_set(b"FAIL", None)
graph = make(0, 0, taken, otherwise, where)
with device.captured() as (stream, graphs):
    assert "captured" in error(native.CaptureError, graph.launch, stream)
destroy(taken, otherwise, *graphs)
del graph
"""
    run(code)


@pytest.mark.parametrize("function", ["cuGraphConditionalHandleCreate", "cuGraphAddNode"])
def test_a_driver_without_the_functions(run: Run, function: str) -> None:
    code = f"""
message = error(native.ArenaError, native.ConditionalGraph, 0, 0, taken, 0, flag.ctypes.data)
assert "the CUDA driver has no {function}" in message, message
assert "570 or newer): update the driver, or use decision='async'" in message
destroy(taken, otherwise)
"""
    run(code, WITHOUT=function)


def set_condition() -> str:
    source = (ROOT / "csrc/graph/set_condition.hpp").read_text()
    match = re.search(r'R"\((.*?)\)";', source, re.DOTALL)
    assert match is not None
    return match.group(1)


@pytest.mark.parametrize("arch", [80, 90, 100, 120])
def test_the_assembler_accepts_the_kernel(arch: int, tmp_path: Path) -> None:
    """Try every ptxas on this machine: that of Triton, and that of a CUDA toolkit."""
    nvidia = pytest.importorskip("triton.backends.nvidia")
    assemblers = sorted((Path(nvidia.__file__).parent / "bin").glob("ptxas*"))
    toolkit = shutil.which("ptxas") or "/usr/local/cuda/bin/ptxas"
    assemblers += [Path(toolkit)] if Path(toolkit).exists() else []
    assert assemblers
    kernel = tmp_path / "set_condition.ptx"
    kernel.write_text(set_condition())
    for assembler in assemblers:
        command = [assembler, f"-arch=sm_{arch}", kernel, "-o", tmp_path / "out.cubin"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, (assembler, done.stderr)
