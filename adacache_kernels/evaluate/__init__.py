"""Compare methods on a pipeline: rows, tables, plots.

It may import demo, and the wings below it.
"""
