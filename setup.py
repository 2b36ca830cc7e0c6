"""Build the extension module adacache_kernels._C with CMake; pyproject.toml has everything else.

The environment variable ADACACHE_CUDA selects the CUDA toolkit: AUTO uses one if it works, ON fails
without one, OFF ignores it. CMAKE_ARGS has further arguments for CMake.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path(__file__).parent.resolve()


def nvcc_candidates(
    environment: Mapping[str, str], usual: str = "/usr/local/cuda/bin/nvcc"
) -> Iterator[tuple[str, str]]:
    """Yield the origin and the path of each possible nvcc; CUDACXX excludes all others."""
    if cudacxx := environment.get("CUDACXX"):
        yield "CUDACXX", shutil.which(cudacxx, path=environment.get("PATH", "")) or cudacxx
        return
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if home := environment.get(variable):
            yield variable, str(Path(home) / "bin" / "nvcc")
    if on_path := shutil.which("nvcc", path=environment.get("PATH", "")):
        yield "PATH", on_path
    if Path(usual).exists():
        yield "the usual place", usual


def nvcc_problem(nvcc: str) -> str | None:
    """Return the error of an nvcc that does not print its version, else None."""
    try:
        answer = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if answer.returncode != 0:
        return f"`nvcc --version` exits with {answer.returncode}"
    return None if "release" in answer.stdout else "`nvcc --version` names no release"


def choose_cuda(environment: Mapping[str, str], **usual: str) -> tuple[str | None, str]:
    """Return the nvcc to use, or None, and one line with the reason."""
    mode = environment.get("ADACACHE_CUDA", "AUTO")
    if mode not in ("AUTO", "ON", "OFF"):
        sys.exit(f"error: ADACACHE_CUDA is {mode!r}, expected AUTO, ON or OFF")
    if mode == "OFF":
        return None, "ADACACHE_CUDA=OFF: CPU build"
    problems = []
    for origin, nvcc in nvcc_candidates(environment, **usual):
        problem = nvcc_problem(nvcc)
        if problem is None:
            skipped = f" ({'; '.join(problems)})" if problems else ""
            return nvcc, f"ADACACHE_CUDA={mode}: {nvcc}, from {origin}{skipped}"
        problems.append(f"{nvcc}, from {origin}, is broken: {problem}")
    reason = (
        "; ".join(problems) or "no nvcc in CUDACXX, CUDA_HOME, CUDA_PATH, PATH or the usual place"
    )
    if mode == "ON":
        sys.exit(f"error: ADACACHE_CUDA=ON, but there is no nvcc that works: {reason}")
    return None, f"ADACACHE_CUDA=AUTO: CPU build, {reason}"


class CMakeBuild(build_ext):
    """A build of the extension with CMake and ninja, into the folder that setuptools expects."""

    def build_extension(self, extension: Extension) -> None:
        import pybind11

        nvcc, reason = choose_cuda(os.environ)
        print(f"adacache_kernels: {reason}", flush=True)
        module = Path(self.get_ext_fullpath(extension.name)).resolve()
        cuda = os.environ.get("ADACACHE_CUDA", "AUTO") if nvcc else "OFF"
        arguments = [
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={module.parent}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DADACACHE_CUDA={cuda}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        build = Path(self.build_temp).resolve() / "cmake"
        # --fresh: under build isolation ninja and pybind11 lie somewhere else each time.
        cmake = ["cmake", "--fresh", "-G", "Ninja", "-S", str(SOURCE), "-B", str(build)]
        # By CUDACXX rather than CMAKE_CUDA_COMPILER, which CMake would take without a trial.
        environment = {**os.environ, "CUDACXX": nvcc} if nvcc else os.environ
        subprocess.run([*cmake, *arguments], check=True, env=environment)
        subprocess.run(["cmake", "--build", str(build)], check=True)


if __name__ == "__main__":
    setup(
        ext_modules=[Extension("adacache_kernels._C", sources=[])],
        cmdclass={"build_ext": CMakeBuild},
    )
