"""Watch the first forward call of a model whose class is not known, and describe the model."""
