"""clipbert-mini, the default model, built from two pinned wheels of PyPI."""
