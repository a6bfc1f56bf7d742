"""The commands and where each is: a command's module is imported when it is asked for."""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
import typer.core
from typer.main import get_command_from_info, get_group
from typer.models import CommandInfo

from cli.plain_values import read_plainly


@dataclass(frozen=True)
class CommandEntry:
    """A command before it is imported.

    Attributes:
        target: `module:name` below cli.commands, of its function or of the Typer that holds
            commands of its own.
        help: its line in `clipbert --help`, short enough for a terminal of 80; none: not listed.
    """

    target: str
    help: str = ""


COMMANDS = {
    "up": CommandEntry("up:up", "Run the whole service here, until Ctrl-C."),
    "down": CommandEntry("up:down", "Stop the `clipbert up` of a data folder."),
    "index": CommandEntry("index:index", "Index videos and images, by files and folders."),
    "search": CommandEntry("search:search", "Search the indexed videos by text."),
    "ask": CommandEntry("ask:ask", "Ask a question about a video."),
    "videos": CommandEntry("videos:app", "List, show and delete videos."),
    "batches": CommandEntry("batches:app", "List, show, cancel and retry batches."),
    "jobs": CommandEntry("jobs:app", "List, show, cancel and retry jobs."),
    "label": CommandEntry("labels:app", "Import, export, list and suggest labels."),
    "finetune": CommandEntry("finetune:finetune", "Train a model on the labels."),
    "finetunes": CommandEntry("finetunes:app", "Follow, pause, resume and retry finetunes."),
    "schedule": CommandEntry("schedules:app", "Let finetunes start by themselves."),
    "models": CommandEntry("models:app", "List, register, promote and roll back models."),
    "generations": CommandEntry("generations:app", "List and show the indexes."),
    "keys": CommandEntry("keys:app", "Make, list and revoke API keys."),
    "weights": CommandEntry("weights:app", "Build, import and export model folders."),
    "data": CommandEntry("data:app", "Look into data sets, before training."),
    "train": CommandEntry("train:train", "Train a model by a recipe, without a server."),
    "evaluate": CommandEntry("evaluate:evaluate", "Measure a model, without a server."),
    "doctor": CommandEntry("doctor:doctor", "Check installation and service; name cures."),
    "migrate": CommandEntry("migrate:migrate", "Bring the database to the newest schema."),
    "demo": CommandEntry("demo:demo"),  # what `make demo` runs
}


class LazyCommands(MutableMapping[str, Any]):
    """The commands by name; each is imported when it is taken out."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  typer's own class is private
        if name not in self._loaded:
            self._loaded[name] = _load(name, COMMANDS[name].target)
        return self._loaded[name]

    def __setitem__(self, name: str, command: object) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class LazyGroup(typer.core.TyperGroup):
    """A group that lists its commands without importing them."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401  typer's own
        super().__init__(**attributes)
        read_plainly(self)  # before it has commands, which would all be imported
        self.commands = LazyCommands()

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401
        """Return the names of all commands, in the order of the help."""
        return [*COMMANDS]

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write the list of commands for the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.help) for name, each in COMMANDS.items() if each.help])


def _load(name: str, target: str) -> object:
    module, _, attribute = target.partition(":")
    found = getattr(import_module(f"cli.commands.{module}"), attribute)
    command: Any
    if isinstance(found, typer.Typer):
        found.rich_markup_mode = None  # plain help, as at the top
        command = get_group(found)
        command.name = name
        for each in command.commands.values():
            # Its first paragraph, which the list would cut at the width of a line.
            each.short_help = " ".join((each.help or "").partition("\n\n")[0].split())
    else:
        command = get_command_from_info(
            CommandInfo(name=name, callback=found),
            pretty_exceptions_short=True,
            rich_markup_mode=None,
        )
    read_plainly(command)
    return command
