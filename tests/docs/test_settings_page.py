"""docs/settings.md has each setting, with its default."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from pydantic_core import PydanticUndefined

from api.settings import ApiSettings
from store.settings import StoreSettings
from workers.settings import WorkerSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "settings.md").read_text()
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
    pages = [*Path(__file__).resolve().parents[2].glob("docs/*.md")]
    named = {
        word
        for page in pages
        for word in re.findall(r"`((?:STORE|WORKER|API)_[A-Z_]+[A-Z])`", page.read_text())
    }

    assert named <= FIELDS.keys()
