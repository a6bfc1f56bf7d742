"""The OpenAPI document as Markdown: an overview, a page for each tag, and one of all schemas.

Plain pages, so that the site's search and its check of links cover them, and nothing is fetched or
drawn by a script.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

Json = dict[str, Any]

_PROBLEM: Final = "application/problem+json"
_SCHEMAS_PAGE: Final = "schemas.md"


def reference_pages(document: Json) -> dict[str, str]:
    """Return the pages by their names.

    Args:
        document: an OpenAPI 3.1 document, with references into its components only.
    """
    pages = {"index.md": _overview(document)}
    for tag in document["tags"]:
        operations = [each for each in _operations(document) if tag["name"] in each[2]["tags"]]
        lines = [f"# {tag['name'].capitalize()}", "", tag["description"]]
        for path, method, operation in operations:
            lines += _operation_lines(path, method, operation)
        pages[f"{tag['name']}.md"] = "\n".join([*lines, ""])
    pages[_SCHEMAS_PAGE] = _schemas(document["components"]["schemas"])
    return pages


def _operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method.upper(), operation


def _overview(document: Json) -> str:
    info = document["info"]
    lines = ["# HTTP API", "", info["summary"], "", info["description"]]
    lines += ["Every path below `/v1` needs an API key: `Authorization: Bearer KEY`.", ""]
    lines += ["[The whole document](../../openapi.json) is OpenAPI 3.1, to make clients from.", ""]
    lines += ["| request | |", "|---|---|"]
    for path, method, operation in _operations(document):
        page, first_sentence = operation["tags"][0], _cell(operation["description"]).split(". ")[0]
        link = f"{page}.md#{operation['operationId']}"
        lines.append(f"| [`{method} {path}`]({link}) | {first_sentence.rstrip('.')} |")
    return "\n".join([*lines, ""])


def _operation_lines(path: str, method: str, operation: Json) -> Iterator[str]:
    yield from ("", f"## `{method} {path}` {{ #{operation['operationId']} }}", "")
    yield operation["description"]
    yield from _parameter_lines(operation.get("parameters", []))
    for media_type, media in operation.get("requestBody", {}).get("content", {}).items():
        yield from ("", f"**Body**, `{media_type}`: {_type_of(media.get('schema', {}))}")
        examples = [each["value"] for each in media.get("examples", {}).values()]
        yield from _example_lines(media.get("example", examples[0] if examples else None))
    yield from ("", "| answer | | |", "|---|---|---|")
    for status, response in operation["responses"].items():
        content = {
            kind: media
            for kind, media in response.get("content", {}).items()
            if kind != _PROBLEM  # all errors have the one form
        }
        types = "; ".join(
            _type_of(media["schema"]) if kind == "application/json" else f"`{kind}`"
            for kind, media in content.items()
        )
        yield f"| {status} | {_cell(response['description'])} | {types} |"


def _parameter_lines(parameters: list[Json]) -> Iterator[str]:
    if parameters:
        yield from ("", "| parameter | in | type | |", "|---|---|---|---|")
    for each in parameters:
        schema = each["schema"]
        name = f"`{each['name']}`" + (" (required)" if each.get("required") else "")
        yield f"| {name} | {each['in']} | {_type_of(schema)} | {_remarks(schema, each)} |"


def _example_lines(example: object) -> Iterator[str]:
    if example is None:
        return
    text = example if isinstance(example, str) else json.dumps(example, indent=2)
    yield from ("", "```json", text.rstrip("\n"), "```")


def _schemas(schemas: Json) -> str:
    lines = ["# Schemas", "", "What requests and answers are made of."]
    for name, schema in sorted(schemas.items()):
        lines += ["", f"## {name}"]
        if "description" in schema:
            lines += ["", schema["description"]]
        if "enum" in schema:
            lines += ["", "One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + "."]
            continue
        lines += ["", "| field | type | |", "|---|---|---|"]
        for field, of in schema["properties"].items():
            is_required = field in schema.get("required", ())
            shown = f"`{field}`" + (" (required)" if is_required else "")
            lines.append(f"| {shown} | {_type_of(of, page='')} | {_remarks(of)} |")
        lines += _example_lines(next(iter(schema.get("examples", ())), None))
    return "\n".join([*lines, ""])


def _type_of(schema: Json, *, page: str = _SCHEMAS_PAGE) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}]({page}#{name.lower()})"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(_type_of(each, page=page) for each in schema[several])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type_of(schema.get('items', {}), page=page)}"
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)


def _remarks(schema: Json, parameter: Json | None = None) -> str:
    said = (parameter or {}).get("description") or schema.get("description", "")
    remarks = [_cell(said)] if said else []
    remarks += [f"at least {schema['minimum']:g}"] if "minimum" in schema else []
    remarks += [f"at most {schema['maximum']:g}"] if "maximum" in schema else []
    if schema.get("default") not in (None, [], {}) and not isinstance(schema["default"], dict):
        remarks.append(f"default `{json.dumps(schema['default'])}`")
    return "; ".join(remarks)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
