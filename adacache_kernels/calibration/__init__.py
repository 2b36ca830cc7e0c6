"""Find the settings for a target: record, simulate, search, refine, save.

It may import api, and what stands below it.
"""
