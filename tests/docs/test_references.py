"""The site's references: of the API, from its document; of the library, from its docstrings."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

import clipbert
from api.main import describe_app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = describe_app().openapi()
WORDS_OF = {"{thumbnail}": DOCUMENT["components"]["schemas"]["Thumbnail"]["enum"]}
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def pages():
    path = ROOT / "docs" / "site" / "api_reference.py"
    spec = importlib.util.spec_from_file_location("api_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.reference_pages(json.loads(json.dumps(DOCUMENT)))


def test_every_operation_is_on_the_page_of_its_tag_and_in_the_overview(pages):
    for operations in DOCUMENT["paths"].values():
        for operation in operations.values():
            [tag], anchor = operation["tags"], f"#{operation['operationId']}"

            assert f"{{ {anchor} }}" in pages[f"{tag}.md"]
            assert f"]({tag}.md{anchor})" in pages["index.md"]


def test_every_schema_that_a_page_links_to_is_described(pages):
    linked = set(re.findall(r"\]\((?:schemas\.md)?#([a-z_]+)\)", "\n".join(pages.values())))
    described = {name.lower() for name in DOCUMENT["components"]["schemas"]}

    headings = re.findall(r"^## (\w+)$", pages["schemas.md"], re.MULTILINE)

    assert {name.lower() for name in headings} == described
    assert linked <= described


def methods_of(path):
    """The methods that a path has, however its variables are written: `/v1/jobs/$JOB`, `{id}`."""
    plain = path.partition("?")[0].rstrip("/")
    written = [re.fullmatch(r"\$\w+|\{\w+\}", part) for part in re.split(r"[/:]", plain)]
    found = set()
    for template, operations in DOCUMENT["paths"].items():
        parts = re.split(r"[/:]", template)
        if len(parts) == len(written) and all(
            part.startswith("{") if variable else word in (part, *WORDS_OF.get(part, ()))
            for part, word, variable in zip(parts, re.split(r"[/:]", plain), written, strict=True)
        ):
            found |= {method.upper() for method in operations}
    return found


def test_the_addresses_that_the_guides_call_are_there():
    """`curl ... $API/v1/jobs/$JOB`."""
    called = [
        path for guide in GUIDES for path in re.findall(r"\$API(/[\w/:$]+)", guide.read_text())
    ]

    assert len(called) > 15
    assert [path for path in called if not methods_of(path)] == []


def test_the_operations_that_the_guides_name_are_there():
    """`GET /v1/stats`, `POST /v1/searches?wait=`."""
    named = [
        (method, path)
        for guide in GUIDES
        for method, path in re.findall(
            r"`(GET|POST|PATCH|DELETE) (/[\w/:{}]+)(?:\?[^`]*)?`", guide.read_text()
        )
    ]

    assert len(named) > 10
    assert [each for each in named if each[0] not in methods_of(each[1])] == []


def test_the_operations_page_says_what_each_figure_of_the_service_means():
    page = (ROOT / "docs" / "operations.md").read_text()
    table = page[page.index("| figure | meaning |") :].partition("\n\n")[0]
    stats = DOCUMENT["components"]["schemas"]["Stats"]["properties"]

    figures = {
        name
        for row in table.splitlines()
        for name in re.findall(r"`([a-z_]+)(?:\.\w+)*`", row.split("|")[1])
    }

    assert figures - {"num_videos"} == stats.keys()


def test_the_library_page_has_every_public_name():
    page = (ROOT / "docs" / "reference" / "library.md").read_text()
    described = set(re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE))
    modules = {name for name in described if importlib.util.find_spec(name.rpartition(".")[0])}

    missing = [
        name
        for name in clipbert.__all__
        if not any(each.endswith(f".{name}") for each in described)
        and getattr(clipbert, name).__module__ not in described
    ]

    assert missing == []
    assert modules == described


def test_the_site_fetches_nothing_from_other_hosts():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    assert config["strict"] is True
    assert config["theme"]["font"] is False
    assert "://" not in (ROOT / "mkdocs.yml").read_text()
