from datetime import timedelta

import anyio
import pytest
import structlog
from sqlalchemy import select

from api.middleware.authentication import AuthenticationMiddleware, KeyVerifier
from store.api_keys import ApiKey, ApiKeyRepository


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/docs"])
def test_health_and_documentation_need_no_key(anonymous, path):
    assert anonymous.get(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/videos"),
        ("POST", "/v1/batches"),
        ("POST", "/v1/searches"),
        ("GET", "/v1/stats"),
        ("GET", "/v1/nothing/here"),
        ("GET", "/"),
        ("DELETE", "/healthz/"),
    ],
)
def test_everything_else_answers_401_without_a_key(anonymous, method, path):
    answer = anonymous.request(method, path, follow_redirects=False)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unauthorized"


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic abc", "Bearer cb_wrong", "Bearer " + "x" * 5000, "Bearer ä"],
)
def test_a_wrong_key_is_refused(anonymous, header):
    answer = anonymous.get("/v1/videos", headers={"Authorization": header.encode("latin-1")})

    assert answer.status_code == 401


def test_the_body_of_a_stranger_is_not_read(anonymous):
    read = []

    def body():
        for _ in range(100):
            read.append(1)
            yield b"x" * 65536

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = anonymous.post("/v1/videos", content=body(), headers=headers)

    assert answer.status_code == 401


def revoke(session, plain):
    keys = ApiKeyRepository(session)
    assert keys.revoke(keys.verify(plain).id)


def test_a_key_works_at_once_and_for_a_moment_after_it_was_revoked(anonymous, sessions):
    verifier = KeyVerifier(sessions, remember=timedelta(seconds=60))
    with sessions.begin() as session:
        key = ApiKeyRepository(session).create("to be revoked")
    headers = {"Authorization": f"Bearer {key}"}
    assert anonymous.get("/v1/videos", headers=headers).status_code == 200
    assert verifier.is_valid(key)

    with sessions.begin() as session:
        revoke(session, key)

    assert verifier.is_remembered(key)
    assert not KeyVerifier(sessions, remember=timedelta(0)).is_valid(key)


def test_using_a_key_writes_nothing(client, sessions):
    client.get("/v1/videos")

    with sessions() as session:
        assert set(session.scalars(select(ApiKey.last_used_at))) == {None}


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_request_that_takes_long_ends_when_its_key_does(sessions, has_begun):
    with sessions.begin() as session:
        key = ApiKeyRepository(session).create("to be revoked")
    verifier = KeyVerifier(sessions, remember=timedelta(0))
    sent, served = [], []

    async def wait_for_hours(_scope, _receive, send):
        if has_begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        with sessions.begin() as session:
            revoke(session, key)
        await anyio.sleep(3600)
        served.append("to the end")

    async def send(message):
        sent.append(message)

    async def request():
        app = AuthenticationMiddleware(wait_for_hours, verifier=verifier, look_seconds=0.01)
        header = (b"authorization", f"Bearer {key}".encode())
        with anyio.fail_after(20):
            await app({"type": "http", "path": "/v1/jobs", "headers": [header]}, None, send)

    anyio.run(request)

    assert served == []
    starts = [each["status"] for each in sent if each["type"] == "http.response.start"]
    assert starts == ([200] if has_begun else [401])
    assert not has_begun or len(sent) == 1  # it breaks off, and does not end as if it were whole


def test_the_log_names_the_key_of_each_request(client):
    with structlog.testing.capture_logs() as lines:
        client.get("/v1/videos")

    assert [line["key"] for line in lines if line["event"] == "request.answered"] == ["tests"]
