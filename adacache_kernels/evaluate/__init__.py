"""Methods against each other on a pipeline: quality, work, time and memory of each video."""
