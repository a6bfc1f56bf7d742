"""The `clipbert` command. Every import that costs time is inside the command that needs it."""

import sys

import typer

from cli import (
    ask,
    batches,
    data,
    demo,
    doctor,
    evaluate,
    finetune,
    finetunes,
    generations,
    index,
    jobs,
    keys,
    labels,
    migrate,
    models,
    schedules,
    search,
    train,
    videos,
    weights,
)
from cli import up as up_command
from cli.console import discard_output, print_error, show_every_name
from cli.errors import INTERRUPTED, CliError

app = typer.Typer(
    help="Index videos in bulk, search them by text down to the moment, ask questions about them, "
    "and finetune the model that answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich would take as long as all the rest
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up_command.up)
app.command("down")(up_command.down)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("ask")(ask.ask)
app.add_typer(videos.app, name="videos")
app.add_typer(batches.app, name="batches")
app.add_typer(jobs.app, name="jobs")
app.add_typer(labels.app, name="label")
app.command("finetune")(finetune.finetune)
app.add_typer(finetunes.app, name="finetunes")
app.add_typer(schedules.app, name="schedule")
app.add_typer(models.app, name="models")
app.add_typer(generations.app, name="generations")
app.add_typer(keys.app, name="keys")
app.add_typer(weights.app, name="weights")
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("doctor")(doctor.doctor)
app.command("migrate")(migrate.migrate)
app.command("demo", hidden=True)(demo.demo)


def main() -> None:
    """Run the command line; what a person can put right is one line, never a traceback."""
    show_every_name()
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, so that a full disk is said, and not at the very end
    except CliError as error:
        print_error(error.message, error.cure)
        sys.exit(error.exit_code)
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
        sys.exit(1)


if __name__ == "__main__":
    main()
