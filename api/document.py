"""The OpenAPI document: FastAPI's own, completed with problems, examples and the API key."""

import json
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.middleware.authentication import OPEN_PATHS
from api.schemas.batches import NewBatch
from api.schemas.labels import NewLabel
from api.schemas.resources import Problem, RequestBody, Resource
from api.schemas.videos import NewVideo

_TAGS: Final = [
    {"name": "videos", "description": "Add videos, look at them, remove them."},
    {"name": "batches", "description": "Add many videos in one request."},
    {"name": "jobs", "description": "What the service is doing, has done and will do."},
    {"name": "searches", "description": "Find moments by text."},
    {
        "name": "questions",
        "description": "Multiple-choice and open-ended questions about one video.",
    },
    {
        "name": "labels",
        "description": "What people say about videos, and data sets frozen from it.",
    },
    {
        "name": "finetunes",
        "description": "Train a model on labels, and promote it if it is better.",
    },
    {
        "name": "models",
        "description": "Which models are registered, what they serve, what is indexed for them.",
    },
    {"name": "schedules", "description": "Finetunes that start by themselves."},
    {"name": "system", "description": "Counts and health."},
]
_DESCRIPTION: Final = """\
Whatever takes time is a **job**: a POST answers 202 with a `Location`; ask there until `done`,
or send `?wait=SECONDS` to be answered when it is. Every error is `application/problem+json` with
a stable `code`. Lists come in pages: send `next_page_token` back as `page_token` until it is null.
"""

Json = dict[str, Any]


def install_openapi(app: FastAPI) -> None:
    """Make the app describe itself with `complete_document`."""

    def openapi() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = complete_document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def complete_document(app: FastAPI) -> Json:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=_DESCRIPTION,
        routes=app.routes,
        tags=_TAGS,
        license_info=app.license_info,
    )
    schemas: Json = document["components"]["schemas"]
    for model in (NewVideo, NewBatch, NewLabel, Problem):
        _add_schema(schemas, model)
    _restore_examples(schemas)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"]["securitySchemes"] = {
        "api_key": {"type": "http", "scheme": "bearer", "description": "made by `clipbert up`"}
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path in OPEN_PATHS else [{"api_key": []}]
            _complete_responses(operation, schemas)
            for media in operation.get("requestBody", {}).get("content", {}).values():
                _add_example(media, schemas)
    return document


def _complete_responses(operation: Json, schemas: Json) -> None:
    responses: Json = operation["responses"]
    if "HTTPValidationError" in json.dumps(responses.get("422", {})):
        del responses["422"]  # FastAPI's own; where a parameter can be wrong, refusals() says so
    for response in responses.values():
        for media_type, media in response.get("content", {}).items():
            if media_type == "application/problem+json":
                media["schema"] = {"$ref": "#/components/schemas/Problem"}
            elif media_type == "application/json":
                _add_example(media, schemas)
    operation["responses"] = dict(sorted(responses.items()))


def _add_example(media: Json, schemas: Json) -> None:
    name = media.get("schema", {}).get("$ref", "").rsplit("/", 1)[-1]
    if not name or "example" in media:
        return
    schema = schemas[name]
    if "examples" in schema:
        media["example"] = schema["examples"][0]
    elif name.startswith("Page_"):
        item = schema["properties"]["items"]["items"]["$ref"].rsplit("/", 1)[-1]
        media["example"] = {"items": schemas[item]["examples"][:1], "next_page_token": None}


def _restore_examples(schemas: Json) -> None:
    # FastAPI leaves out all that is None, inside the examples too.
    models = [*RequestBody.__subclasses__(), *Resource.__subclasses__()]
    for model in models:
        models += model.__subclasses__()
        extra = model.model_config.get("json_schema_extra")
        if model.__name__ in schemas and isinstance(extra, dict):
            schemas[model.__name__].update(extra)


def _add_schema(schemas: Json, model: type[Any]) -> None:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
