"""Start every test from the same seed, on one thread; mark tests; build a CUDA driver stub."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import ROOT
from tests.support import addresses

# The models are tiny: a second thread makes them slower, up to 30 times on a busy machine.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # For the processes that tests start.

PIPELINES = ROOT / "tests" / "pipelines"


def pytest_report_header() -> str:
    """Return the line that names the arithmetic of this run."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"arithmetic: {capability}, every second model moved by {addresses.SHIFT} bytes"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of tests/pipelines, and those that use the driver stub."""
    for item in items:
        # An address differs from process to process, and processes share out tests by their names.
        assert " at 0x" not in item.nodeid, f"{item.nodeid}: give the parameters ids"
        if item.path.is_relative_to(PIPELINES):
            item.add_marker("pipelines")
        if "driver" in getattr(item, "fixturenames", ()):
            item.add_marker("driver_stub")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    addresses.begin()


def tool(name: str) -> str | None:
    """Return the path of a program, first beside the interpreter and then on PATH."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with lib/libcuda.so.1 and with old/libcuda.so.1, of an older driver."""
    cmake, ninja = tool("cmake"), tool("ninja")
    if sys.platform != "linux" or cmake is None or ninja is None:
        pytest.skip("the driver stub needs Linux, CMake and ninja")
    if not (ROOT / "CMakeLists.txt").exists():
        pytest.skip("the source tree is missing")
    import fcntl

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    build = shared / "fakecuda"
    options = ["-DADACACHE_BUILD_PYTHON=OFF", "-DADACACHE_BUILD_TESTS=ON", "-DADACACHE_CUDA=OFF"]
    options += ["-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    # With several workers, the first one builds it and the others wait.
    with (shared / "fakecuda.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (
            [cmake, "-G", "Ninja", "-S", str(ROOT), "-B", str(build), *options],
            [cmake, "--build", str(build), "--target", "fakecuda", "fakecuda_old", "-j2"],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    return next(build.rglob("lib/libcuda.so.1")).parent.parent
