"""Searches, questions, and what is worth labelling next."""
