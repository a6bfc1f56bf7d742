"""A run's folder, also where making it was broken off."""

import json

import pytest

from clipbert.errors import ConfigError
from clipbert.runs.contract import RECIPE_FILE, RUN_FILE
from clipbert.training.recipe import Recipe
from clipbert.training.run_folder import open_run_folder

RECIPE = Recipe("qa")
FACTS = {"data_sha256": "0"}


@pytest.mark.parametrize("written", [(), (RECIPE_FILE,), (RECIPE_FILE, f".{RUN_FILE}.77")])
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_whose_making_was_broken_off_is_made_again(tmp_path, written, resume):
    for name in written:
        (tmp_path / name).write_text("")

    open_run_folder(tmp_path, RECIPE, facts=FACTS, resume=resume)

    assert json.loads((tmp_path / RUN_FILE).read_text()) == FACTS
    open_run_folder(tmp_path, RECIPE, facts=FACTS, resume=True)


def test_a_folder_with_a_run_is_not_begun_again(tmp_path):
    open_run_folder(tmp_path, RECIPE, facts=FACTS, resume=False)

    with pytest.raises(ConfigError, match="not empty: choose another folder, or --resume"):
        open_run_folder(tmp_path, RECIPE, facts=FACTS, resume=False)
