"""Searches and questions: people wait for them."""
