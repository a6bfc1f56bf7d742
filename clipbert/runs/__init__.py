"""A process that somebody watches: how it ends, what it reports, its fence. Imports no torch."""
