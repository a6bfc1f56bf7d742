"""What the documents show is what the program has: commands, targets, files, figures, links."""

import ast
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cli.commands.demo import SEARCHES
from cli.main import app
from cli.registry import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*PAGES, ROOT / "CHANGELOG.md", *DECISIONS]
README_LINES = 160
COMMAND_LIST = ROOT / "docs" / "cli.md"

by_name = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def shell_blocks(document):
    return re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def commands_of(document):
    """The `clipbert ...` lines of the blocks."""
    for block in shell_blocks(document):
        plain = re.sub(r"<<'(\w+)'\n.*?^\1$", "", block, flags=re.DOTALL | re.MULTILINE)
        for line in plain.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["clipbert"]:
                yield words[1:]


ALL_COMMANDS = [
    pytest.param(words, id=f"{document.name}: {' '.join(words)}"[:90])
    for document in PAGES
    for words in commands_of(document)
]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


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
    assert len(ALL_COMMANDS) > 30


def test_a_command_that_is_named_in_the_text_is_there():
    group: Any = get_command(app)
    unknown = []
    quoted = re.compile(r"`clipbert ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")
    for document in DOCUMENTS:
        for name, sub in quoted.findall(document.read_text()):
            command = group.commands.get(name) if name in COMMANDS else None
            subcommands = getattr(command, "commands", None)
            if command is None or (sub and subcommands is not None and sub not in subcommands):
                unknown.append(f"{document.name}: clipbert {name} {sub}".rstrip())

    assert unknown == []


def test_the_page_of_the_command_line_lists_each_command_and_subcommand():
    page, group = COMMAND_LIST.read_text(), get_command(app)
    missing = []
    for name, place in COMMANDS.items():
        row = re.search(rf"^\| .*`clipbert {name}`.*", page, re.MULTILINE)
        if place.help and row is None:
            missing.append(name)
        for sub in getattr(group.commands[name], "commands", {}) if row else ():
            if f"`{sub}`" not in row[0]:
                missing.append(f"{name} {sub}")

    assert missing == []


@by_name
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
        for path in PAGES
        for name in re.findall(
            r"(?:^|`)make (?:PYTHON=\S+ )?([a-z-]+)", path.read_text(), re.MULTILINE
        )
    }

    assert {"demo", "up", "test"} <= named <= targets | {"test-fast"}


def test_every_script_and_test_that_is_named_is_there():
    named = [
        name
        for page in PAGES
        for name in re.findall(
            r"(?:python|pytest)(?: -\w)* ((?:benchmarks|tests)/[\w/]+\.py)", page.read_text()
        )
    ]

    assert len(named) > 5
    assert [each for each in named if not (ROOT / each).is_file()] == []


PACKAGES = ("api", "cli", "clipbert", "clipbert_client", "embedded", "migrations", "policy")
PACKAGES += ("store", "workers")
FOLDERS = (*PACKAGES, "benchmarks", "docs", "recipes", "samples", "tests")


def test_files_and_folders_that_are_named_are_there():
    """`store/jobs/state.py`, `tests/chaos/`: whole paths; a lone name may be anything."""
    named = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`")
    missing = [
        f"{document.name}: {path}"
        for document in DOCUMENTS
        for path in named.findall(document.read_text())
        if not (ROOT / path).exists()
        and not path.startswith(("benchmarks/out", "migrations/versions/N"))
    ]

    assert missing == []


def test_modules_and_what_is_in_them_that_are_named_are_there():
    """`clipbert.training.recipe.Recipe`: a module, and a function or a class that it defines."""
    named = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+)`")
    missing = [
        f"{document.name}: {name}"
        for document in DOCUMENTS
        for name in named.findall(document.read_text())
        if not (ROOT / name.replace(".", "/")).exists() and not is_defined(name)
    ]

    assert missing == []


def is_defined(name):
    """Whether a dotted name is a module, or its last word something that a module defines."""
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        module = ROOT.joinpath(*parts[:length]).with_suffix(".py")
        if module.is_file():
            text = module.read_text()
            return all(
                re.search(rf"^ *(?:(?:async )?def|class) {word}\b", text, re.MULTILINE)
                for word in parts[length:]
            )
    return False


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_the_title_of_a_decision_begins_with_its_number(decision):
    number = decision.name[:4]

    assert re.match(rf"# {number}: [A-Z]", decision.read_text())


def test_the_map_of_the_rooms_has_each_room():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    mapped = {
        package: set(rooms.split())
        for package, rooms in re.findall(r"^(\w+/) .*\n((?:  .*\n)?)", text, re.MULTILINE)
    }

    for package in ("clipbert/", "store/", "policy/", "workers/", "api/", "cli/"):
        folders = [path for path in (ROOT / package).iterdir() if (path / "__init__.py").is_file()]
        assert mapped[package] == {f"{path.name}/" for path in folders}, package


def anchors_of(document):
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    prose = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@by_name
def test_every_link_leads_somewhere(document):
    broken = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text()):
        path, _, anchor = target.partition("#")
        leads_to = (document.parent / path).resolve() if path else document
        is_there = leads_to.exists() and leads_to.is_relative_to(ROOT)
        if not is_there or (anchor and anchor not in anchors_of(leads_to)):
            broken.append(target)

    assert broken == []


def other_texts():
    """The further texts of the benchmark, read: importing it loads torch, which takes seconds."""
    module = ast.parse((ROOT / "benchmarks" / "demo_search.py").read_text())
    for node in module.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "OTHER_TEXTS":
            return ast.literal_eval(node.value)
    raise AssertionError("benchmarks/demo_search.py has no OTHER_TEXTS")


def test_the_counts_of_the_demo_are_those_of_the_benchmarks_page():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    searches = re.search(r"index (\d+) clips \(\d+ looks\), (\d+) searches", page)
    share = re.search(r"(\d+) of the demo's (\d+) texts.*?of (\d+) further texts", page)

    assert searches is not None
    assert share is not None
    clips = [each for each in (ROOT / "samples").iterdir() if each.suffix != ".md"]
    assert int(searches[1]) == len(clips)
    assert int(searches[2]) == int(share[2]) == len(SEARCHES)
    assert int(share[3]) == len(other_texts())
