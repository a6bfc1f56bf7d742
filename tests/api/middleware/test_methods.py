"""What holds for every path of the API's description: HEAD, Allow, null."""

import importlib
import pkgutil
from uuid import uuid4

import pytest
from pydantic import ValidationError

import api.schemas
from api.allowed_methods import allowed_methods
from api.main import describe_app
from api.schemas.resources import RequestBody
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind

PATHS = describe_app().openapi()["paths"]
READABLE = sorted(path for path, operations in PATHS.items() if "get" in operations)
# What differs between any two answers.
OF_THE_MOMENT = {"date", "x-request-id"}


def address(path):
    for name in ("job_id", "video_id", "batch_id", "search_id", "question_id", "label_id"):
        path = path.replace("{" + name + "}", str(uuid4()))
    while "{" in path:
        start, end = path.index("{"), path.index("}")
        path = path[:start] + str(uuid4()) + path[end + 1 :]
    return path


@pytest.mark.parametrize("path", READABLE)
def test_head_answers_as_get_does_without_a_body(client, path):
    url = address(path)

    read, asked = client.get(url), client.head(url)

    assert asked.status_code == read.status_code
    assert asked.content == b""
    names = {name for name in read.headers if name not in OF_THE_MOMENT}
    assert {name for name in asked.headers if name not in OF_THE_MOMENT} == names
    if path != "/metrics":  # which counts
        for name in names - {"content-length"} if "stats" in path else names:
            assert asked.headers[name] == read.headers[name], name


def test_head_of_a_stream_of_events_ends(client, sessions):
    with sessions.begin() as session:
        job_id = JobRepository(session).enqueue(NewJob(kind=JobKind.INGEST, input={})).id

    answer = client.head(f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == b""


@pytest.mark.parametrize("path", sorted(PATHS))
def test_a_method_that_a_path_has_not_is_refused_with_all_that_it_has(client, path):
    methods = {each.upper() for each in PATHS[path]}
    if "GET" in methods:
        methods.add("HEAD")

    for method in {"PUT", "POST", "PATCH", "DELETE", "GET"} - methods:
        answer = client.request(method, address(path))
        if answer.status_code == 404:
            # `{job_id}:cancel` read as an id, and `suggestions` too: there is no such job.
            assert ":" in path or path == "/v1/labels/suggestions" or "labels/" in path
            continue
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == methods
        assert all(each in answer.json()["detail"] for each in methods)


def test_the_methods_of_a_path_are_its_own():
    app = describe_app()

    assert allowed_methods(app, "/v1/videos") == ("GET", "HEAD", "POST")
    assert allowed_methods(app, f"/v1/schedules/{uuid4()}") == ("GET", "HEAD", "PATCH", "DELETE")
    assert allowed_methods(app, f"/v1/jobs/{uuid4()}:cancel") == ("POST",)
    assert allowed_methods(app, "/nothing") == ()


def every_body():
    for module in pkgutil.iter_modules(api.schemas.__path__):
        importlib.import_module(f"api.schemas.{module.name}")
    waiting, found = [RequestBody], []
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        found += subclasses
        waiting += subclasses
    return sorted(set(found), key=lambda each: each.__name__)


@pytest.mark.parametrize("body", every_body(), ids=lambda body: body.__name__)
def test_null_is_taken_just_where_the_schema_says_so(body):
    schema = body.model_json_schema()
    example = (schema.get("examples") or [{}])[0]

    for name, field in schema["properties"].items():
        kinds = field.get("anyOf", [field])
        says = {"type": "null"} in kinds
        try:
            body.model_validate({**example, name: None})
            does = True
        except ValidationError as error:
            does = not any(each["loc"][:1] == (name,) for each in error.errors())
        assert does == says, name


@pytest.mark.parametrize(
    "field", ["answer", "choices", "right_choice", "start_seconds", "end_seconds", "source"]
)
def test_a_label_takes_null_where_the_schema_says_so_and_is_never_a_fault_of_ours(
    client, make_video, field
):
    video_id = make_video(b"one", filename="one.mp4")
    label = {"video": str(video_id), "question": "what is it?", "answer": "a dog"}
    made = client.post("/v1/labels", json=label)
    assert made.status_code < 300, made.text
    label_id = client.get("/v1/labels").json()["items"][0]["id"]

    answer = client.patch(f"/v1/labels/{label_id}", json={field: None})

    if answer.status_code == 200:
        assert answer.json()[field] is None
    else:  # such as a question without its answer: refused as a label, not as a null
        assert answer.status_code == 422
        assert answer.json()["code"] == "invalid_label"
