"""Store what block lists add in one guidance branch, and add it again."""
