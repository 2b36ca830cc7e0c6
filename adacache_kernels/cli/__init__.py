"""Parse the command line, one file for each command.

It may import every other wing.
"""
