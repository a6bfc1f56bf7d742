"""Refuse parameters of the query that a path does not have: a list would go on as if unasked."""

import difflib
from collections.abc import Iterator
from http import HTTPStatus

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.errors import ApiError

_known: dict[str, frozenset[str]] = {}


async def refuse_unknown_parameters(request: Request) -> None:
    """Check the names of the query's parameters, for routes that have some of their own.

    A path without parameters takes any: clients add some to get around a cache.

    Raises:
        ApiError: 422 invalid_request, with each parameter that the route does not have.
    """
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute):
        return
    known = _parameters_of(route)
    unknown = sorted(set(request.query_params) - known)
    if not known or not unknown:
        return
    errors = [
        {"field": f"query.{name}", "message": _what_is_right(name, known)} for name in unknown
    ]
    raise ApiError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid_request",
        f"query.{unknown[0]}: {errors[0]['message']}",
        errors=errors,
    )


def _parameters_of(route: APIRoute) -> frozenset[str]:
    if route.unique_id not in _known:
        _known[route.unique_id] = frozenset(_names_in(route.dependant))
    return _known[route.unique_id]


def _names_in(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for below in dependant.dependencies:
        yield from _names_in(below)


def _what_is_right(name: str, known: frozenset[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    nearest = nearest or sorted(each for each in known if each.startswith(name))
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"there is no such parameter; {hint}this path has {', '.join(sorted(known))}"
