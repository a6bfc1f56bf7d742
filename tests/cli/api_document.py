"""What the API takes, by its own OpenAPI document: a fake that takes more proves nothing."""

import json
import re
from functools import cache
from typing import Any

import jsonschema

from api.main import describe_app

JSON = "application/json"
_PARAMETER = re.compile(r"\\\{\w+\\\}")


def refusal(
    method: str, path: str, query: dict[str, str], *, content_type: str, body: bytes
) -> str | None:
    """Say why the API would refuse a request, whatever it stores; None if it would not."""
    operation = _operation(method, path)
    if operation is None:
        return "the API has no such path with this method"
    parameters = operation.get("parameters", [])
    schemas = {each["name"]: each["schema"] for each in parameters if each["in"] == "query"}
    for name, text in query.items():
        if name not in schemas:
            return f"query.{name}: the path has {', '.join(sorted(schemas)) or 'no parameters'}"
        if all(_error(value, schemas[name]) for value in _readings(text)):
            return f"query.{name}: {text!r} is not what the path takes"
    content = operation.get("requestBody", {}).get("content", {})
    media_type = content_type.partition(";")[0]
    if not body:
        return "the path wants a body" if operation.get("requestBody", {}).get("required") else None
    if media_type not in content:
        return f"{media_type!r} is not among {', '.join(content) or 'the bodies: it has none'}"
    return _why_not(body, content[media_type]["schema"]) if media_type == JSON else None


def example(method: str, path: str) -> Any:
    """Return what the document says that the API answers, as an example; None for no body."""
    operation = _operation(method, path)
    assert operation is not None, (method, path)
    good = next(answer for code, answer in operation["responses"].items() if code[0] == "2")
    media = good.get("content", {}).get("application/json", {})
    examples = [each["value"] for each in media.get("examples", {}).values()]
    return examples[0] if examples else media.get("example")


def _operation(method: str, path: str) -> dict[str, Any] | None:
    fitting = [
        (num_parameters, operations[method.lower()])
        for pattern, num_parameters, operations in _templates()
        if pattern.fullmatch(path) and method.lower() in operations
    ]
    # /v1/labels/suggestions is itself, not a label's id.
    return min(fitting, key=lambda each: each[0])[1] if fitting else None


@cache
def _document() -> dict[str, Any]:
    return describe_app().openapi()


@cache
def _templates() -> list[tuple[re.Pattern[str], int, dict[str, Any]]]:
    found = []
    for path, operations in _document()["paths"].items():
        pattern, num_parameters = _PARAMETER.subn("[^/:]+", re.escape(path))
        found.append((re.compile(pattern), num_parameters, operations))
    return found


def _readings(text: str) -> list[object]:
    """Read a parameter's text as each type that it can be."""
    try:
        return [text, json.loads(text)]
    except ValueError:
        return [text]


def _why_not(body: bytes, schema: dict[str, Any]) -> str | None:
    try:
        value = json.loads(body)
    except ValueError:
        return "the body is not JSON"
    error = _error(value, schema)
    return None if error is None else f"body{error.json_path[1:]}: {error.message}"


def _error(value: object, schema: dict[str, Any]) -> jsonschema.ValidationError | None:
    return jsonschema.exceptions.best_match(_validator(json.dumps(schema)).iter_errors(value))


@cache
def _validator(schema: str) -> jsonschema.Draft202012Validator:
    bundle = {**json.loads(schema), "components": _document()["components"]}
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return jsonschema.Draft202012Validator(bundle, format_checker=checker)
