"""Compare methods on a pipeline: rows, tables, plots.

It may import demo, calibration, api, baselines, and the wings below them.
"""
