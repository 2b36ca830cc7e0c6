"""Run a small text-to-video pipeline, unpatched and patched. It needs the `demo` extra.

It may import calibration, and the wings below it.
"""
