"""`adacache demo`: a small text-to-video pipeline, unpatched and patched. The `demo` extra."""
