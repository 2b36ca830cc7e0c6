"""Run scripts on the CUDA driver stub, each in a process of its own.

A script finds `native`, the compiled extension, and `device`, a device of the stub. It fails if the
driver has counted an error.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.arenas import run_script

Run = Callable[..., None]

START = """
import ctypes, random, sys, threading
import numpy as np
from tests.support import bare_native
from tests.support.cuda_driver_stub.emulated_device import FakeDevice
native = bare_native.load()
device = FakeDevice()
"""

END = """
assert device.driver.fakecuda_errors() == 0, device.driver.fakecuda_last_error()
print("ended well")
"""


def script_runner(driver: Path, start: str = "", end: str = "") -> Run:
    """Return a function that runs a script, with settings of the driver as keyword arguments.

    Args:
        driver: the folder that contains lib/libcuda.so.1.
        start: comes before every script.
        end: comes after every script.
    """

    def run(code: str, **settings: str) -> None:
        run_on_driver(driver, START + start + code + end + END, **settings)

    return run


def run_on_driver(driver: Path, script: str, **settings: str) -> None:
    """Run a whole script, which has to print "ended well", with these settings of the driver."""
    environment = {f"FAKECUDA_{name}": value for name, value in settings.items()}
    printed = run_script(script, LD_LIBRARY_PATH=str(driver / "lib"), **environment)
    assert printed == "ended well\n"


def elementwise_kernel(name: str, operation: str) -> str:
    """Return the PTX of a kernel whose `operation` turns %f1 = x[thread] into its new value %f2."""
    return f"""
.visible .entry {name}(.param .u64 x)
{{
  .reg .b32 %r<2>;
  .reg .f32 %f<3>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [x];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd3, %rd1, %rd2;
  ld.global.f32 %f1, [%rd3];
  {operation}
  st.global.f32 [%rd3], %f2;
  ret;
}}
"""
