"""What other libraries leave on a model, and what of it excludes a cache."""
