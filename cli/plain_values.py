"""Turns the words of a command line into values, without pydantic.

Typer's own way imports pydantic and builds a validator for every option: half of the time that a
short command takes. What is asked of options here is little: text, numbers within bounds, paths.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import typer

_SCALARS = (str, int, float, bool, Path)
_WORDS = {int: "a whole number", float: "a number"}
_TRUTHS = {
    **dict.fromkeys(("1", "true", "yes", "on", "t", "y"), True),
    **dict.fromkeys(("0", "false", "no", "off", "f", "n", ""), False),
}


@dataclass(frozen=True)
class PlainValue:
    """Reads the words of one parameter: in place of Typer's own reader."""

    read_one: Callable[[Any], Any]
    is_list: bool

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ANN401  typer's protocol
        """Read what was given; None and nothing given stay as they are."""
        if value is None:
            return () if self.is_list else None
        try:
            if self.is_list:
                return [self.read_one(each) for each in value]
            return self.read_one(value)
        except ValueError as error:
            raise typer.BadParameter(str(error), ctx=ctx, param=param) from None


def read_plainly(command: Any) -> None:  # noqa: ANN401  typer's own class is private
    """Make a command, and all below it, read its parameters by `PlainValue` where it can."""
    for parameter in command.params:
        _give_reader(parameter)
    make_help_option = command.get_help_option

    def help_option(ctx: Any) -> Any:  # noqa: ANN401
        option = make_help_option(ctx)
        _give_reader(option)
        return option

    command.get_help_option = help_option  # it is among no parameters before it is asked for
    for each in getattr(command, "commands", {}).values():
        read_plainly(each)


def _give_reader(parameter: Any) -> None:  # noqa: ANN401
    reader = _reader_of(parameter)
    if reader is not None:
        parameter._runtime_param = reader


def _reader_of(parameter: Any) -> PlainValue | None:  # noqa: ANN401
    descriptor = getattr(parameter, "type_descriptor", None)
    if descriptor is None or not hasattr(parameter, "_runtime_param"):
        return None  # another version of Typer: its own way is right, if slower
    kind, is_list = descriptor.annotation, False
    if get_origin(kind) is list:
        (kind,), is_list = get_args(kind), True
    asked = descriptor.parameter_info
    if asked.parser is not None:
        return PlainValue(asked.parser, is_list)
    if kind not in _SCALARS:
        return None
    return PlainValue(lambda word: _read(word, kind, least=asked.min, most=asked.max), is_list)


def _read(word: Any, kind: type, *, least: float | None, most: float | None) -> Any:  # noqa: ANN401
    """Read one word; what has the type already is a default.

    Raises:
        ValueError: it is not of this type, or out of bounds.
    """
    if kind is bool:
        return word if isinstance(word, bool) else _truth(str(word))
    if kind is Path and word == "":  # a variable that is not set; Python takes it for this folder
        raise ValueError("the path is empty; this folder is called .")
    if not isinstance(word, kind):
        try:
            word = kind(word)
        except ValueError:
            raise ValueError(f"{word!r} is not {_WORDS[kind]}") from None
    if least is not None and not word >= least:  # NaN is not either
        raise ValueError(f"{word} is less than {least:g}")
    if most is not None and not word <= most:
        raise ValueError(f"{word} is more than {most:g}")
    return word


def _truth(word: str) -> bool:
    try:
        return _TRUTHS[word.strip().lower()]
    except KeyError:
        raise ValueError(f"{word!r} is neither yes nor no") from None
