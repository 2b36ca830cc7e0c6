"""Check settings, and read and write calibration files.

It may import schedule, and what stands below it.
"""
