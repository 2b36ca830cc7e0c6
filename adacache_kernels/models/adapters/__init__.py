"""Adapters of known classes, one family a file."""
