"""Options that several commands declare once."""

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from cli.option_groups import with_option_groups


@dataclass(frozen=True, kw_only=True)
class Size:
    width: Annotated[int | None, typer.Option("--width", min=1)] = None
    tags: Annotated[list[str] | None, typer.Option("--tag")] = None


def draw_app() -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @with_option_groups
    def draw(name: str, *, size: Size, loud: bool = False) -> None:
        typer.echo(f"{name} {size.width} {size.tags} {loud}")

    return app


def test_each_field_of_a_group_is_an_option():
    given = ["a", "--width", "3", "--tag", "x", "--tag", "y", "--loud"]

    found = CliRunner().invoke(draw_app(), given)

    assert found.stdout == "a 3 ['x', 'y'] True\n"


def test_a_field_that_is_not_given_has_its_default():
    found = CliRunner().invoke(draw_app(), ["a"])

    assert found.stdout == "a None None False\n"


def test_the_limits_of_a_field_hold():
    found = CliRunner().invoke(draw_app(), ["a", "--width", "0"])

    assert found.exit_code == 2
