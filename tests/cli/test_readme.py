"""The commands and figures that the documents show are those of the program."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from benchmarks.demo_search import DEMO_TEXTS, OTHER_TEXTS
from cli.commands.demo import SEARCHES
from cli.main import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()


def shell_blocks(document):
    return re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def commands_of(document):
    """The `clipbert ...` lines of the blocks, and those within backticks in the text."""
    for block in shell_blocks(document):
        plain = re.sub(r"<<'(\w+)'\n.*?^\1$", "", block, flags=re.DOTALL | re.MULTILINE)
        for line in plain.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["clipbert"]:
                yield words[1:]


ALL_COMMANDS = [
    pytest.param(words, id=f"{document.name}: {' '.join(words)}"[:90])
    for document in DOCUMENTS
    for words in commands_of(document)
]


@pytest.mark.parametrize("words", ALL_COMMANDS)
def test_a_command_of_the_documents_is_one_that_the_program_takes(words):
    command, context = get_command(app), None
    name = "clipbert"

    while True:
        context = command.make_context(name, [*words], parent=context)
        if not hasattr(command, "resolve_command"):
            break
        name, command, words = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )

    assert context.params is not None


def test_the_documents_show_commands():
    assert len(ALL_COMMANDS) > 15


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_shell_blocks_are_whole(document):
    for block in shell_blocks(document):
        checked = subprocess.run(
            ["bash", "-n"], input=block, text=True, capture_output=True, check=False
        )
        assert checked.returncode == 0, checked.stderr + block


def test_every_target_of_make_that_is_named_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name
        for path in DOCUMENTS
        for name in re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(), re.MULTILINE)
    }

    assert {"demo", "up", "test"} <= named <= targets


def test_every_script_and_test_that_is_named_is_there():
    named = re.findall(r"`(?:python|pytest)(?: -\w)* ((?:benchmarks|tests)/\S+\.py)", README)

    assert len(named) > 5
    assert [each for each in named if not (ROOT / each).is_file()] == []


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)

    assert [each for each in links if not (ROOT / each).exists()] == []


def test_the_counts_of_the_demo_are_the_readmes():
    texts = dict(SEARCHES)
    searches = re.search(r"index (\d+) clips \(\d+ looks\), (\d+) searches", README)
    share = re.search(r"(\d+) of the demo's (\d+) texts.*?of (\d+) further texts", README)

    assert searches is not None
    assert share is not None
    clips = [each for each in (ROOT / "samples").iterdir() if each.suffix != ".md"]
    assert int(searches[1]) == len(clips)
    assert int(searches[2]) == int(share[2]) == len(SEARCHES) == len(DEMO_TEXTS)
    assert int(share[3]) == len(OTHER_TEXTS)
    assert DEMO_TEXTS.keys() == texts.keys()
