"""The `clipbert` command. Every import that costs time is inside the command that needs it."""

import sys
from typing import Annotated

import typer

from cli.errors import FAILED, INTERRUPTED, UNREACHABLE, CliError
from cli.registry import LazyGroup
from cli.show.console import discard_output, print_error, show_every_name
from clipbert_client.errors import ClientError, ServiceUnreachable

app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich would take as long as all the rest
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from clipbert_client.version import client_version

        print(f"clipbert {client_version()}")
        raise typer.Exit


@app.callback()
def clipbert(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and end.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Index videos in bulk, search them by text down to the moment, ask questions about them.

    Labels make the model that answers better: see `clipbert finetune`.
    """


def main() -> None:
    """Run the command line; what a person can put right is one line, never a traceback."""
    show_every_name()
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, so that a full disk is said, and not at the very end
    except (CliError, ClientError) as error:
        print_error(error.message, error.cure)
        sys.exit(UNREACHABLE if isinstance(error, ServiceUnreachable) else FAILED)
    except KeyboardInterrupt:
        print_error("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `clipbert jobs list | head`
        discard_output()
        sys.exit(0)
    except OSError as error:
        discard_output()
        what = f"{error.filename}: " if error.filename else ""
        print_error(f"{what}{error.strerror or error}")
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
