"""Recognise what other libraries have set on a model, and what of it a cache does not allow."""
