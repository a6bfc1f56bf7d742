"""Which version this is."""

DISTRIBUTION = "clipbert-workers"


def client_version() -> str:
    """Return the version of the installed distribution; "unknown" where none is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
