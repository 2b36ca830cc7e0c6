"""Every test starts from the same seed, on one thread; a CUDA driver for tests without a GPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import ROOT
from tests.support import addresses

# The models are tiny: a second thread makes them slower, on a busy machine thirty times.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # Of the processes that tests start.


def pytest_report_header() -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    return f"arithmetic: {capability}, every second model moved by {addresses.SHIFT} bytes"


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    addresses.begin()


def tool(name: str) -> str | None:
    return shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that has lib/libcuda.so.1 and, of an older driver, old/libcuda.so.1."""
    cmake, ninja = tool("cmake"), tool("ninja")
    if sys.platform != "linux" or cmake is None or ninja is None:
        pytest.skip("the fake driver needs Linux, CMake and ninja")
    if not (ROOT / "CMakeLists.txt").exists():
        pytest.skip("the sources are not here")
    import fcntl

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    build = shared / "fakecuda"
    options = ["-DADACACHE_BUILD_PYTHON=OFF", "-DADACACHE_BUILD_TESTS=ON", "-DADACACHE_CUDA=OFF"]
    options += ["-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    # The first process builds it for all.
    with (shared / "fakecuda.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (
            [cmake, "-G", "Ninja", "-S", str(ROOT), "-B", str(build), *options],
            [cmake, "--build", str(build), "--target", "fakecuda", "fakecuda_old", "-j2"],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    return next(build.rglob("lib/libcuda.so.1")).parent.parent
