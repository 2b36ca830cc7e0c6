"""Run a small text-to-video pipeline, unpatched and patched. It needs the `demo` extra.

It may import the package's public names, calibration, api, baselines, and the wings below them.
"""
