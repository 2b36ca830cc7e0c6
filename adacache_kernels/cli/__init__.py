"""Parse the command line: one file a command.

It may import every other wing.
"""
