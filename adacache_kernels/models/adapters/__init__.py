"""The adapters of known model classes, one family in a file."""
