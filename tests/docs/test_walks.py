"""The functions that docs/walks.md walks through are there, by these names."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "walks.md").read_text()
PACKAGES = "api|cli|clipbert|clipbert_client|embedded|policy|store|workers"
NAMES = sorted(set(re.findall(rf"`((?:{PACKAGES})(?:\.\w+)+)`", PAGE)))


@cache
def functions_of(module: Path) -> frozenset[str]:
    """The functions and methods that a module defines; read, as importing torch takes seconds."""
    found = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = [
                n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            found |= {f"{node.name}.{method.name}" for method in methods}
    return frozenset(found)


@pytest.mark.parametrize("name", NAMES)
def test_a_function_of_a_walk_is_there(name):
    parts = name.split(".")
    modules = {
        ".".join(parts[length:]): ROOT.joinpath(*parts[:length]).with_suffix(".py")
        for length in range(1, len(parts))
    }
    [(function, module)] = [(rest, path) for rest, path in modules.items() if path.is_file()]

    assert function in functions_of(module)


def test_there_are_four_walks_and_each_step_of_theirs_names_a_function():
    steps = re.findall(r"^\d+\. (.*)$", PAGE, re.MULTILINE)

    assert len(re.findall(r"^## From ", PAGE, re.MULTILINE)) == 4
    assert len(steps) > 60
    assert [step for step in steps if not re.match(rf"`(?:{PACKAGES})\.", step)] == []
