"""Run methods against each other on a pipeline: rows, tables, plots.

It may import demo, calibration, api, baselines, and what stands below them; never cli.
"""
