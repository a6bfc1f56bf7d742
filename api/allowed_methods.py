"""Which methods a path has, whichever of its routes answers them (RFC 9110, 10.2.1).

FastAPI names the methods of one route only.
"""

import re
from functools import lru_cache
from typing import Final

from fastapi import FastAPI

_METHODS: Final = ("get", "head", "post", "put", "patch", "delete")
_PARAMETER: Final = re.compile(r"\\\{\w+\\\}")


def allowed_methods(app: FastAPI, path: str) -> tuple[str, ...]:
    """Return all methods of a path; none where it is not in the API's description."""
    fitting = [each for each in _templates(app) if each[0].fullmatch(path)]
    if not fitting:
        return ()
    # /v1/labels/suggestions is itself, not a label's id.
    least = min(num_parameters for _, num_parameters, _ in fitting)
    found = {method for _, number, methods in fitting if number == least for method in methods}
    if "get" in found:
        found.add("head")
    return tuple(method.upper() for method in _METHODS if method in found)


@lru_cache(maxsize=4)
def _templates(app: FastAPI) -> list[tuple[re.Pattern[str], int, frozenset[str]]]:
    templates = []
    for path, operations in app.openapi()["paths"].items():
        # A colon begins a custom method: `{job_id}:cancel`.
        pattern, num_parameters = _PARAMETER.subn("[^/:]+", re.escape(path))
        templates.append((re.compile(pattern), num_parameters, frozenset(operations)))
    return templates
