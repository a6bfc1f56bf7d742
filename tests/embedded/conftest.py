"""Users and folders as the command's tests have them."""

from tests.cli.conftest import as_nobody, open_folder

__all__ = ["as_nobody", "open_folder"]
