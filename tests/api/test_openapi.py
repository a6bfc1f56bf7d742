import jsonschema
import pytest

from api.main import describe_app
from api.openapi import OUTLINE, outline
from api.responses.problems import refusals

DESCRIBED = describe_app().openapi()
OPERATIONS = [
    (path, method, operation)
    for path, operations in DESCRIBED["paths"].items()
    for method, operation in operations.items()
]
IDS = [operation["operationId"] for _, _, operation in OPERATIONS]


def test_the_committed_outline_is_the_one_of_the_code():
    committed = OUTLINE.read_text(encoding="utf-8")

    assert committed == outline(DESCRIBED), (
        "run `python -m api.openapi` and commit docs/api_outline.txt"
    )


def test_the_outline_has_every_route_with_its_parameters_and_every_schema_with_its_fields():
    lines = outline(DESCRIBED).splitlines()

    assert len(lines) == len(IDS) + 1 + len(DESCRIBED["components"]["schemas"])
    assert "GET /v1/jobs/{job_id} get_job ? wait if-none-match" in lines
    assert "Moment: clip_index start_seconds end_seconds score" in lines
    assert "Split = train | holdout" in lines


def test_the_app_serves_this_document(anonymous):
    assert anonymous.get("/openapi.json").json() == DESCRIBED


def test_every_operation_has_an_id_of_its_own():
    assert len(set(IDS)) == len(IDS)


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS, ids=IDS)
def test_every_operation_is_described(path, method, operation):
    assert operation["tags"]
    assert operation["summary"]
    assert operation["description"]
    if path.startswith("/v1/"):
        assert operation["security"] == [{"api_key": []}]
        assert {"401", "500", "503"} <= set(operation["responses"])
    else:
        assert operation["security"] == []
    if operation.get("parameters") and "{" in path:
        assert "404" in operation["responses"]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS, ids=IDS)
def test_every_body_has_an_example_that_fits_its_schema(path, method, operation):
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for body in bodies:
        for media_type, media in body.get("content", {}).items():
            if media_type.startswith(("video/", "image/")):
                continue
            examples = [each["value"] for each in media.get("examples", {}).values()]
            examples += [media["example"]] if "example" in media else []
            assert examples, (media_type, body)
            if media_type != "multipart/form-data":
                for example in examples:
                    validate(example, media["schema"])


def validate(value, schema):
    bundle = {**schema, "components": DESCRIBED["components"]}
    validator = jsonschema.Draft202012Validator(
        bundle, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    validator.validate(value)


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS, ids=IDS)
def test_every_error_is_a_problem(path, method, operation):
    for status, response in operation["responses"].items():
        if int(status) >= 400 and method != "head":
            assert list(response["content"]) == ["application/problem+json"]
            media = response["content"]["application/problem+json"]
            assert media["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert all(code in response["description"] for code in media["examples"])


def test_an_unknown_code_cannot_be_described():
    with pytest.raises(KeyError):
        refusals("no_such_code")
