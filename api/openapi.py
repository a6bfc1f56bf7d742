"""Write what the API offers: `python -m api.openapi [FILE]`.

Without FILE, the outline goes to docs/api_outline.txt, which is committed: a line for each route
and schema, so that a diff shows what a change does to the API. A test compares it with the code.
With FILE, the whole OpenAPI document goes there; `make docs` builds the API reference from it.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from api.document import Json
from api.main import describe_app

OUTLINE: Final = Path(__file__).resolve().parent.parent / "docs" / "api_outline.txt"


def outline(document: Json) -> str:
    """Return a line for each route and each schema of an OpenAPI document.

        GET /v1/jobs list_jobs ? kind state batch_id video_id page_size page_token
        Moment: clip_index start_seconds end_seconds score
        Split = train | holdout

    Args:
        document: an OpenAPI document, as `describe_app().openapi()` returns it.

    Returns:
        Routes in the document's order, with their operation's id and the names of their query
        parameters and headers; then schemas by name, with their fields or values.
    """
    return "\n".join([*_route_lines(document), "", *_schema_lines(document), ""])


def _route_lines(document: Json) -> Iterator[str]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            names = [
                each["name"] for each in operation.get("parameters", []) if each["in"] != "path"
            ]
            parameters = f" ? {' '.join(names)}" if names else ""
            yield f"{method.upper()} {path} {operation['operationId']}{parameters}"


def _schema_lines(document: Json) -> Iterator[str]:
    for name, schema in sorted(document["components"]["schemas"].items()):
        if "enum" in schema:
            yield f"{name} = {' | '.join(schema['enum'])}"
        else:
            yield f"{name}: {' '.join(schema['properties'])}"


def main() -> None:
    """Write the outline, or the whole document to the file that is named."""
    document = describe_app().openapi()
    if len(sys.argv) > 1:
        path = Path(sys.argv[1])
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    else:
        path, text = OUTLINE, outline(document)
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
