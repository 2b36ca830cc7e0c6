"""Test the installed package: its libraries, the cost of its import, the search for nvcc."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

import adacache_kernels
from adacache_kernels import _native
from adacache_kernels.cli import main as cli
from tests import ROOT


def run(code: str) -> str:
    """Return the output of a new interpreter that runs outside of the source tree."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout


def test_import_touches_no_gpu() -> None:
    code = (
        "import sys, torch, adacache_kernels; from adacache_kernels import _C, ops; "
        "print(torch.cuda.is_initialized()); print(open('/proc/self/maps').read())"
    )
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not list the libraries of a process")
    initialized, maps = run(code).split("\n", 1)
    assert initialized == "False"
    assert "libcuda.so" not in maps


def test_import_loads_nothing_but_torch_and_the_package() -> None:
    """A cheap import loads only torch, numpy, the standard library and the package."""
    code = "import sys, torch, numpy; before = set(sys.modules); import adacache_kernels; "
    loaded = run(code + "print(*sorted(set(sys.modules) - before))").split()
    tops = {name.partition(".")[0] for name in loaded}
    assert tops <= {"adacache_kernels", "torch", "numpy", *sys.stdlib_module_names}
    assert "torch._dynamo" not in loaded and "torch._inductor" not in loaded


def test_import_loads_no_command_of_the_command_line() -> None:
    loaded = run("import adacache_kernels, sys; print(*sys.modules)").split()
    wings = {"cli", "evaluate", "demo"}
    assert not {f"adacache_kernels.{wing}" for wing in wings} & set(loaded)


def test_info_prints_how_the_package_was_built(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["version"] == adacache_kernels.__version__
    assert {"compiler", "cuda", "torch", "devices"} <= lines.keys()


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is missing")
def test_extension_needs_only_the_cpp_runtime() -> None:
    command = ["readelf", "-d", str(_native.module().__file__)]
    dynamic = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    allowed = r"(libstdc\+\+|libgcc_s|libc|ld-linux.*)\.so\.\d+"
    assert needed
    assert all(re.fullmatch(allowed, name) for name in needed), needed


def test_build_config() -> None:
    config = _native.module().build_config()
    assert config["version"] == adacache_kernels.__version__
    assert re.match(r"\w+ \d+\.", config["compiler"])
    if config["cuda"] == "off":
        assert config["cuda_architectures"] == []
    else:
        assert re.match(r"nvcc \d+\.\d+.* at .+", config["cuda"])
        assert config["cuda_architectures"]
    assert config["cuda_kernels"] == []


def test_python_m_prints_the_build() -> None:
    command = [sys.executable, "-m", "adacache_kernels"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout
    assert re.search(rf"^version +{re.escape(adacache_kernels.__version__)}$", printed, re.M)
    assert re.search(r"^devices +\S", printed, re.M)


def test_python_m_runs_commands() -> None:
    command = [sys.executable, "-m", "adacache_kernels", "bench", "quality"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert run.returncode == 2 and "required: --prompts" in run.stderr


INSTALLED = """
import importlib.metadata
try:
    files = importlib.metadata.files("adacache-kernels") or []
except importlib.metadata.PackageNotFoundError:
    files = []
print(*(file.locate() for file in files if str(file) == "adacache_kernels/__init__.py"))
"""
IMPORTED = "\nimport tests, adacache_kernels\nprint(adacache_kernels.__file__)"


def test_the_tests_import_the_installed_package() -> None:
    """`python -m` and plain `python` find the installed package before the source tree."""
    installed = run(INSTALLED).strip()
    if not installed or not Path(installed).exists():
        pytest.skip("the package is not installed, or only as a link to the source tree")
    # `python -c` puts the working directory first on sys.path, as `python -m pytest` does.
    command = [sys.executable, "-c", IMPORTED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert Path(done.stdout.strip()).samefile(installed)
    assert Path(str(adacache_kernels.__file__)).samefile(installed)


def test_package_data_is_installed() -> None:
    package = Path(adacache_kernels.__file__).parent
    assert (package / "py.typed").exists()
    assert (package / "_C.pyi").exists()
    assert list(package.glob("demo/**/*.safetensors"))


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="the source tree is missing")
def test_sdist_has_what_a_build_needs(tmp_path: Path) -> None:
    source, dist = tmp_path / "source", tmp_path / "dist"
    hidden = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__", "*.so")
    shutil.copytree(ROOT, source, ignore=hidden)
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", str(dist)]
    subprocess.run([*command, str(source)], capture_output=True, check=True)
    with tarfile.open(next(dist.iterdir())) as archive:
        packed = {name.split("/", 1)[-1] for name in archive.getnames()}
    wanted = {"setup.py", "pyproject.toml", "CMakeLists.txt", "LICENSE", "README.md", "Makefile"}
    for folder in ("csrc", "python", "adacache_kernels"):
        wanted |= {
            str(path.relative_to(source))
            for path in (source / folder).rglob("*")
            if path.is_file() and path.suffix != ".md"
        }
    assert not wanted - packed


@pytest.fixture
def setup_script() -> ModuleType:
    path = ROOT / "setup.py"
    if not path.exists():
        pytest.skip("the source tree is missing")
    spec = importlib.util.spec_from_file_location("adacache_setup", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WORKS = "echo 'Cuda compilation tools, release 13.0, V13.0.88'"
NOWHERE = {"usual": "/nowhere/nvcc"}


def fake_nvcc(folder: Path, script: str) -> str:
    folder.mkdir(parents=True)
    nvcc = folder / "nvcc"
    nvcc.write_text(f"#!/bin/sh\n{script}\n")
    nvcc.chmod(0o755)
    return str(nvcc)


@pytest.mark.parametrize("mode", ["AUTO", "ON"])
def test_nvcc_is_found_by_each_variable(
    setup_script: ModuleType, tmp_path: Path, mode: str
) -> None:
    cxx = fake_nvcc(tmp_path / "cxx", WORKS)
    home = fake_nvcc(tmp_path / "home" / "bin", WORKS)
    path = fake_nvcc(tmp_path / "path", WORKS)
    usual = fake_nvcc(tmp_path / "usual", WORKS)
    environment = {
        "ADACACHE_CUDA": mode,
        "CUDACXX": cxx,
        "CUDA_HOME": str(tmp_path / "home"),
        "CUDA_PATH": str(tmp_path / "home"),
        "PATH": str(tmp_path / "path"),
    }
    for variables, nvcc, origin in [
        ((), cxx, "CUDACXX"),
        (("CUDACXX",), home, "CUDA_HOME"),
        (("CUDA_HOME",), home, "CUDA_PATH"),
        (("CUDA_PATH",), path, "PATH"),
        (("PATH",), usual, "the usual place"),
    ]:
        for variable in variables:
            del environment[variable]
        chosen, reason = setup_script.choose_cuda(environment, usual=usual)
        assert chosen == nvcc
        assert reason == f"ADACACHE_CUDA={mode}: {nvcc}, from {origin}"


def test_no_nvcc(setup_script: ModuleType) -> None:
    chosen, reason = setup_script.choose_cuda({}, **NOWHERE)
    assert chosen is None
    assert "CPU build, no nvcc" in reason
    with pytest.raises(SystemExit, match="ADACACHE_CUDA=ON, but there is no nvcc that works"):
        setup_script.choose_cuda({"ADACACHE_CUDA": "ON"}, **NOWHERE)


@pytest.mark.parametrize(
    ("script", "problem"), [("exit 3", "exits with 3"), ("echo hello", "names no release")]
)
def test_broken_nvcc(setup_script: ModuleType, tmp_path: Path, script: str, problem: str) -> None:
    broken = fake_nvcc(tmp_path / "broken", script)
    environment = {"PATH": str(tmp_path / "broken")}
    chosen, reason = setup_script.choose_cuda(environment, **NOWHERE)
    assert chosen is None
    assert f"CPU build, {broken}, from PATH, is broken" in reason
    assert problem in reason
    with pytest.raises(SystemExit, match=problem):
        setup_script.choose_cuda({**environment, "ADACACHE_CUDA": "ON"}, **NOWHERE)

    works = fake_nvcc(tmp_path / "works", WORKS)
    chosen, reason = setup_script.choose_cuda(environment, usual=works)
    assert chosen == works
    assert problem in reason


def test_cudacxx_is_used_alone(setup_script: ModuleType, tmp_path: Path) -> None:
    works = fake_nvcc(tmp_path / "works", WORKS)
    environment = {"CUDACXX": "/nowhere/nvcc", "PATH": str(tmp_path / "works")}
    chosen, reason = setup_script.choose_cuda(environment, usual=works)
    assert chosen is None
    assert "/nowhere/nvcc, from CUDACXX, is broken" in reason


def test_off_runs_no_nvcc(setup_script: ModuleType, tmp_path: Path) -> None:
    called = tmp_path / "called"
    nvcc = fake_nvcc(tmp_path / "nvcc", f"touch {called}")
    chosen, reason = setup_script.choose_cuda({"ADACACHE_CUDA": "OFF", "CUDACXX": nvcc})
    assert chosen is None
    assert reason == "ADACACHE_CUDA=OFF: CPU build"
    assert not called.exists()


def test_wrong_mode(setup_script: ModuleType) -> None:
    with pytest.raises(SystemExit, match="ADACACHE_CUDA is 'yes', expected AUTO, ON or OFF"):
        setup_script.choose_cuda({"ADACACHE_CUDA": "yes"})
