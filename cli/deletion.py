"""When a command that deletes asks: unless all of it was named in full, by ids or whole names."""

import sys
from typing import Annotated

import typer

from cli.errors import CliError

YesOption = Annotated[
    bool,
    typer.Option(
        "--yes", "-y", help="Do not ask; what is named by its id or whole name needs no question."
    ),
]


def confirm_delete(why: str, found: str) -> None:
    """Ask whether what was found, and not named in full, is to be deleted.

    Raises:
        CliError: there is nobody to ask.
        typer.Abort: it is not.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise CliError(why, "--yes deletes without asking, as a whole name or an id does")
    typer.confirm(f"delete {found}?", abort=True)
