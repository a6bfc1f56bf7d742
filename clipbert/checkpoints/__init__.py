"""Weights on disk: model folders, their cards, and checkpoints that others trained."""
