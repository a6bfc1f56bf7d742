"""An API to connect to, as the command's tests have it."""

from tests.cli.conftest import api, clipbert

__all__ = ["api", "clipbert"]
