"""Commands that other commands name, so that they run on the data folder that is in use."""

import re
from functools import cache

from cli.data_folder import data_option_in_use
from cli.registry import COMMANDS

# Their --data is a data set, or they need no service.
_WITHOUT_DATA_FOLDER = {"weights", "data", "train", "evaluate"}


def runnable(text: str) -> str:
    """Return a text whose commands can be copied: `--data` is in each, where this one has it.

    The option stands behind the command, before its arguments:

        runnable("see: clipbert jobs show ID")  ->  "see: clipbert jobs show --data /srv/clips ID"
    """
    option = data_option_in_use()
    if option is None:
        return text
    return _commands().sub(lambda found: f"{found[0]} {option}", text)


@cache
def _commands() -> re.Pattern[str]:
    """Match a command with its verb, such as `clipbert videos list`, without `--data`."""
    names = [name for name in COMMANDS if name not in _WITHOUT_DATA_FOLDER]
    nouns = [name for name in names if COMMANDS[name].target.endswith(":app")]
    verbs = [name for name in names if name not in nouns]
    words = f"(?:{'|'.join(nouns)}) [a-z][a-z-]*|(?:{'|'.join(verbs)})"
    return re.compile(rf"\bclipbert (?:{words})(?![\w-])(?! --data)")
