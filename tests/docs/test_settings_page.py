"""docs/settings.md has each setting, with its default."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from pydantic_core import PydanticUndefined

from api.settings import ApiSettings
from embedded.deployment import Services, service_environment
from store.settings import StoreSettings
from workers.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE, COMPOSE = (ROOT / "docs" / "settings.md").read_text().split("## Docker Compose")
ROWS = {
    name: default.strip("`")
    for name, default in re.findall(
        r"^\| `((?:STORE|WORKER|API)_\w+)` \| (.+?) \|", PAGE, re.MULTILINE
    )
}
# The API has those of the store, and one that is the workers'.
FIELDS = {
    f"{prefix}_{name.upper()}": field
    for prefix, settings in (
        ("STORE", StoreSettings),
        ("WORKER", WorkerSettings),
        ("API", ApiSettings),
    )
    for name, field in settings.model_fields.items()
    if (prefix, name) not in {("API", "store"), ("API", "redis_url")}
}
EXAMPLE = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
UNITS = {"MiB": 2**20, "GiB": 2**30}


def as_number(text: str) -> float:
    number, _, unit = text.partition(" ")
    return float(number) * UNITS.get(unit, 1)


def test_the_page_has_all_settings_and_no_others():
    assert ROWS.keys() == FIELDS.keys()


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_default_of_the_page_is_that_of_the_code(name):
    default, shown = FIELDS[name].default, ROWS[name]

    if default is PydanticUndefined:
        assert shown == "required"
    elif default in (None, ()):
        assert not re.fullmatch(r"[\d. ]+\w*", shown)  # what is done without one, in words
    elif isinstance(default, timedelta):
        assert TypeAdapter(timedelta).validate_python(shown) == default
    elif isinstance(default, str):
        assert shown == default
    else:
        assert as_number(shown) == default


def test_variables_that_other_pages_name_are_there():
    pages = [*ROOT.glob("docs/*.md")]
    named = {
        word
        for page in pages
        for word in re.findall(r"`((?:STORE|WORKER|API)_[A-Z_]+[A-Z])`", page.read_text())
    }

    assert named <= FIELDS.keys() | EXAMPLE.keys()


def test_the_page_has_what_env_example_sets_with_its_values():
    rows = re.findall(r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \| (.+?) \| .*", COMPOSE, re.MULTILINE)
    shown = {
        name: default.strip("`").replace("required", "")
        for names, default in rows
        for name in re.findall(r"\w+", names)
    }

    assert shown.items() >= EXAMPLE.items()
    assert {name for name in shown if not name.startswith(("CLIPBERT_", "XDG_"))} == EXAMPLE.keys()


def test_the_page_says_which_settings_up_does_not_take_from_its_environment():
    services = Services("postgresql+psycopg://h/n", "redis://h", "file:///b")
    set_by_up = service_environment(
        services, media_roots=[], watched_folders=[], device="cpu", host="h", port=1
    )

    introduction = PAGE[: PAGE.index("## The store")]

    assert {*set_by_up} & FIELDS.keys() | {"API_LISTEN_FD"} == {
        *re.findall(r"`((?:STORE|WORKER|API)_\w+)`", introduction)
    }
