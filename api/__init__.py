"""The HTTP API: checks, stores, dispatches and answers; never computes."""
