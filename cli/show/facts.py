"""A resource of the API as lines that people read: no braces, no quotes, no microseconds."""

import re
from collections.abc import Iterator, Mapping

from cli.show.console import format_time
from cli.show.table import one_line

MOST_LISTED = 20  # of a list; --json shows them all
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


def facts_of(resource: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield what a resource says as names and words; what says nothing is left out.

    "counts", {"queued": 2, "failed": 1}  ->  ("counts", "queued 2, failed 1")

    What is nested deeper has a line of its own: ("finetune recipe", "epochs 4").
    """
    for name, value in resource.items():
        yield from _facts(name.replace("_", " "), value)


def _facts(name: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        plain = {key: each for key, each in value.items() if not _is_nested(each)}
        said = {key.replace("_", " "): words(each) for key, each in plain.items()}
        if any(said.values()):
            yield name, ", ".join(f"{key} {word}" for key, word in said.items() if word)
        for key, each in value.items():
            if _is_nested(each):
                yield from _facts(f"{name} {key.replace('_', ' ')}", each)
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        yield name, f"{len(value)} (--json shows them)"
    else:
        said_here = words(value)
        if said_here:
            yield name, said_here


def words(value: object) -> str:
    """Write a value as a person would: yes, 0.25, 2026-01-05 09:00:00 UTC; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and _TIME.match(value):
        return f"{format_time(value)} UTC"
    if isinstance(value, list):
        more = f" and {len(value) - MOST_LISTED} more" if len(value) > MOST_LISTED else ""
        return ", ".join(map(words, value[:MOST_LISTED])) + more
    return one_line(str(value))


def _is_nested(value: object) -> bool:
    if isinstance(value, dict):
        return bool(value)
    return isinstance(value, list) and any(isinstance(each, dict | list) for each in value)
