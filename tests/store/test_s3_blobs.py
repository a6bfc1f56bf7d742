"""Blobs in S3, by its real protocol: moto's server, and two processes that use one bucket."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from store.blobs import open_blobs
from store.errors import BlobNotFound

URL = "s3://films/prefix"
OTHER_PROCESS = """
import json, sys
from store.blobs import open_blobs
blobs = open_blobs(sys.argv[1])
for line in sys.stdin:
    name, arguments, named = json.loads(line)
    if name == "put_bytes":
        arguments[1] = arguments[1].encode()
    answer = getattr(blobs, name)(*arguments, **named)
    if name == "keys":
        answer = sorted(answer)
    if isinstance(answer, bytes):
        answer = answer.decode()
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture(scope="module")
def server():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client = boto3.client("s3")
    client.create_bucket(Bucket="films")
    yield client
    for found in client.list_objects_v2(Bucket="films").get("Contents", []):
        client.delete_object(Bucket="films", Key=found["Key"])
    client.delete_bucket(Bucket="films")


@pytest.fixture
def blobs(bucket):
    return open_blobs(URL)


@pytest.fixture
def other(bucket):
    """The same store in another process: call it with a method and its arguments."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, URL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:

        def call(name, *arguments, **named):
            process.stdin.write(json.dumps([name, arguments, named]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield call
        process.stdin.close()


def test_two_processes_see_what_the_other_writes_lists_and_deletes(blobs, other):
    key, second = "media/ab/abcd", "media/ab/abce"
    # Both have looked before: what they found is not to be remembered.
    assert list(blobs.keys("media")) == other("keys", "media") == []
    assert not blobs.exists(key)
    assert not other("exists", key)

    other("put_bytes", key, "theirs")
    assert list(blobs.keys("media")) == [key]
    # What was listed and found a moment ago is not remembered either.
    other("put_bytes", second, "theirs too")
    assert list(blobs.keys("media")) == [key, second]
    other("put_bytes", second, "theirs again")
    assert blobs.size(second) == 12
    other("delete", second)
    assert list(blobs.keys("media")) == [key]
    assert not blobs.exists(second)
    assert (blobs.exists(key), blobs.size(key)) == (True, 6)
    assert blobs.read_range(key, start=0, end=100) == b"theirs"

    blobs.put_bytes(key, b"ours, and longer")
    assert other("size", key) == 16
    assert other("read_range", key, start=0, end=4) == "ours"

    blobs.put_bytes(second, b"x")
    assert other("keys", "media") == [key, second]
    other("delete", key)
    assert list(blobs.keys("media")) == [second]
    assert not blobs.exists(key)
    for read in (
        lambda: blobs.size(key),
        lambda: blobs.read_range(key, start=0, end=1),
        lambda: blobs.open_read(key).__enter__(),
        lambda: blobs.as_local_file(key).__enter__(),
    ):
        with pytest.raises(BlobNotFound):
            read()
    blobs.delete(second)
    assert other("keys", "media") == []
    blobs.delete(second)  # nothing is there: nothing happens


def test_a_large_file_comes_whole_and_as_a_file_again(blobs, tmp_path):
    content = os.urandom(6 * 2**20 + 1)  # more than one part of an upload
    (tmp_path / "large").write_bytes(content)
    pieces = []

    blobs.take_file("media/la/large", tmp_path / "large")

    with blobs.as_local_file("media/la/large", on_piece=lambda: pieces.append(1)) as path:
        assert path.read_bytes() == content
    assert len(pieces) > 1
    assert not path.exists()
    with blobs.open_read("media/la/large") as file:
        file.seek(-1, os.SEEK_END)
        assert file.read() == content[-1:]


def test_writing_that_breaks_off_leaves_what_was_there(blobs, other):
    blobs.put_bytes("a/b", b"before")

    def break_off():
        with blobs.open_write("a/b") as file:
            file.write(b"half")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        break_off()

    assert other("read_range", "a/b", start=0, end=100) == "before"
