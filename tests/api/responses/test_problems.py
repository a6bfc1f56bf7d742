import re
import socket
from importlib.metadata import version
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from api.main import create_app
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.videos.batches import BatchRepository


def problem(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["code"] == code
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["type"] == f"urn:clipbert:problem:{code}"
    return body


def test_an_unknown_path_is_a_problem(client):
    problem(client.get("/v1/nothing"), 404, "not_found")


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", None])
def test_json_that_is_not_called_json_is_a_problem_wherever_it_is_sent(client, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type}
    operations = [
        (method, re.sub("{[^}]*}", "01a20b2d-7393-7fa1-9a59-ede53e8653c8", path))
        for path, of_path in client.app.openapi()["paths"].items()
        for method, operation in of_path.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    ]

    for method, path in operations:
        answer = client.request(method, path, content=b'{"text": "dog"}', headers=headers)

        said = problem(answer, 415, "unsupported_media_type")
        assert "application/json" in said["detail"]
    assert len(operations) > 5


def test_other_names_of_json_are_taken(client):
    for content_type in ("application/json; charset=utf-8", "application/vnd.api+json"):
        headers = {"Content-Type": content_type}
        answer = client.post("/v1/searches", content=b'{"text": 7}', headers=headers)

        assert problem(answer, 422, "invalid_request")["detail"] == "body.text: must be text"


def test_a_body_that_is_missing_is_a_problem(client):
    answer = client.post("/v1/searches")

    assert problem(answer, 422, "invalid_request")["detail"] == "body: is missing"


def test_a_method_that_is_not_possible_is_a_problem(client):
    answer = client.put("/v1/searches")

    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/jobs/{}", "job_not_found"),
        ("/v1/videos/{}", "video_not_found"),
        ("/v1/videos/{}/media", "video_not_found"),
        ("/v1/videos/{}/clips", "video_not_found"),
        ("/v1/videos/{}/thumbnails/poster", "video_not_found"),
        ("/v1/batches/{}", "batch_not_found"),
        ("/v1/batches/{}/items", "batch_not_found"),
        ("/v1/searches/{}", "search_not_found"),
        ("/v1/questions/{}", "question_not_found"),
    ],
)
@pytest.mark.parametrize("id_", ["01a20b2d-7393-7fa1-9a59-ede53e8653c8", "no-uuid"])
def test_an_unknown_id_is_not_found_and_so_is_what_is_no_id(client, path, code, id_):
    problem(client.get(path.format(id_)), 404, code)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/{}:cancel",
        "/v1/jobs/{}:retry",
        "/v1/batches/{}:cancel",
        "/v1/batches/{}:retry_failed",
    ],
)
def test_custom_methods_of_unknown_ids_are_not_found(client, path):
    kind = path.split("/")[2].rstrip("s").removesuffix("e") if "batches" in path else "job"

    problem(client.post(path.format(uuid4())), 404, f"{kind}_not_found")


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b'{"text": "a"', b"\xff\xfe"])
def test_a_malformed_body_is_a_problem(client, body):
    answer = client.post("/v1/searches", content=body, headers={"Content-Type": "application/json"})

    if body:
        problem(answer, 400, "malformed_json")
    else:
        problem(answer, 422, "invalid_request")


def test_deeply_nested_json_is_a_problem_and_no_crash(client):
    body = b"[" * 200_000

    answer = client.post("/v1/searches", content=body, headers={"Content-Type": "application/json"})

    problem(answer, 400, "malformed_json")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body.text"),
        ({"text": "   "}, "body.text"),
        ({"text": "x" * 1001}, "body.text"),
        ({"text": "nul \0"}, "body.text"),
        ({"text": "a", "limit": 0}, "body.limit"),
        ({"text": "a", "mode": "guess"}, "body.mode"),
        ({"text": "a", "colour": "red"}, "body.colour"),
        ({"text": "a", "filters": {"video_ids": ["x"]}}, "body.filters.video_ids.0"),
    ],
)
def test_invalid_fields_are_named(client, body, field):
    body = problem(client.post("/v1/searches", json=body), 422, "invalid_request")

    assert [each["field"] for each in body["errors"]] == [field]
    assert all(each["message"] for each in body["errors"])


def test_invalid_parameters_are_named(client):
    body = problem(client.get("/v1/jobs?page_size=0&kind=dance"), 422, "invalid_request")

    assert {each["field"] for each in body["errors"]} == {"query.page_size", "query.kind"}


@pytest.mark.parametrize("token", ["%21", "abc", "IjEi", "bnVsbA"])
@pytest.mark.parametrize("path", ["videos", "jobs", "batches", "searches", "questions"])
def test_a_page_token_that_is_not_ours_is_a_problem(client, path, token):
    problem(client.get(f"/v1/{path}?page_token={token}"), 422, "invalid_page_token")


@pytest.mark.parametrize(
    ("made_by", "used_on"),
    [
        ("batches?page_size=1", "jobs?page_size=1"),
        ("batches?page_size=1", "videos?page_size=1"),
        ("jobs?page_size=1", "jobs?state=failed"),
        ("jobs?kind=ingest&page_size=1", "jobs?page_size=1"),
    ],
)
def test_a_page_token_of_another_list_or_other_filters_is_a_problem(
    client, sessions, made_by, used_on
):
    with sessions.begin() as session:
        for index in range(2):
            batch_id = BatchRepository(session).create().id
            new = NewJob(JobKind.INGEST, {"index": index}, batch_id=batch_id, batch_index=0)
            JobRepository(session).enqueue(new)
    token = client.get(f"/v1/{made_by}").json()["next_page_token"]

    assert len(client.get(f"/v1/{made_by}&page_token={token}").json()["items"]) == 1
    problem(client.get(f"/v1/{used_on}&page_token={token}"), 422, "invalid_page_token")


def test_without_redis_the_service_is_degraded_but_ready(settings):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{port}/0"})
    with TestClient(create_app(away)) as client:
        answer = client.get("/readyz")

    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["redis"]) == ("degraded", False)


@pytest.mark.parametrize("announced", [True, False])
def test_json_that_is_too_large_is_a_problem(client, announced):
    def chunks():
        for _ in range(40):
            yield b" " * 2**16

    content = b" " * (40 * 2**16) if announced else chunks()
    answer = client.post(
        "/v1/searches", content=content, headers={"Content-Type": "application/json"}
    )

    problem(answer, 413, "payload_too_large")


def test_a_database_that_is_away_is_a_problem_with_retry_after(settings, api_key):
    store = settings.store.model_copy(
        update={"database_url": "postgresql+psycopg://nobody@127.0.0.1:1/none"}
    )
    app = create_app(settings.model_copy(update={"store": store}))
    headers = {"Authorization": f"Bearer {api_key}"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        answer = client.get("/v1/videos")
        readiness = client.get("/readyz")
        health = client.get("/healthz")

    problem(answer, 503, "store_unavailable")
    assert answer.headers["retry-after"]
    problem(readiness, 503, "not_ready")
    assert health.status_code == 200


def test_a_fault_of_ours_is_a_problem_that_tells_no_internals(settings, api_key):
    app = create_app(settings)

    @app.get("/v1/faulty")
    def faulty() -> None:
        raise RuntimeError("the secret is 42")

    headers = {"Authorization": f"Bearer {api_key}"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        answer = client.get("/v1/faulty")

    body = problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in body["detail"]


@pytest.mark.parametrize("path", ["/healthz", "/v1/jobs", "/v1/nothing"])
def test_every_answer_says_the_version_of_the_service(client, path):
    assert client.get(path).headers["x-clipbert-version"] == version("clipbert-workers")
