"""The service over HTTP, for Python. Imports nothing of the other packages."""
