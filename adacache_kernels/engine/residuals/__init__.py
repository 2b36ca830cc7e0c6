"""Store what block lists add, and add it again, for one guidance branch."""
