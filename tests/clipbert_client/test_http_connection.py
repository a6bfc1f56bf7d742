"""One connection to the service, and what may become of it."""

import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from clipbert_client.client import ApiClient
from clipbert_client.errors import ApiProblem, ServiceUnreachable, UnusableAddress
from clipbert_client.http_connection import Connection, NoAnswer

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def listening(serve):
    """Serve each connection by a function of its socket, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        sockets = []

        def accept():
            with suppress(OSError):  # the end of the test closes it
                while True:
                    connection, _ = server.accept()
                    connection.settimeout(20)
                    sockets.append(connection)
                    with connection:
                        serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", sockets
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def read_head(connection):
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(4096)
        if not piece:
            break
        head += piece
    return head


def ask(url, **options):
    connection = Connection(url, {})
    try:
        return connection.request("GET", "/healthz", read_seconds=5, **options).read()
    finally:
        connection.close()


def test_requests_share_one_connection():
    def serve(connection):
        for _ in range(3):
            read_head(connection)
            connection.sendall(ANSWER)

    with listening(serve) as (url, sockets), ApiClient(url, "key") as client:
        for _ in range(3):
            client.get("/healthz")

        assert len(sockets) == 1


def test_a_connection_that_the_service_closed_meanwhile_is_made_anew():
    def serve(connection):
        read_head(connection)
        connection.sendall(ANSWER)

    with listening(serve) as (url, sockets), ApiClient(url, "key") as client:
        client.get("/healthz")
        time.sleep(0.05)  # the end of the first connection arrives
        client.post("/healthz", {})

        assert len(sockets) == 2


def test_an_answer_that_comes_before_all_was_sent_is_read():
    def serve(connection):
        read_head(connection)
        body = b'{"code": "payload_too_large", "detail": "too large"}'
        connection.sendall(b"HTTP/1.1 413 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)

    def endless():
        for _ in range(4000):
            yield b"x" * 65536

    # What the system does with data for a socket that was closed differs: either all is said, or
    # that the service broke off; never a traceback, never an endless wait.
    with (
        listening(serve) as (url, _),
        ApiClient(url, "key") as client,
        pytest.raises((ApiProblem, ServiceUnreachable)),
    ):
        client.send_lines("/healthz", endless())


def test_an_answer_that_breaks_off_is_none():
    def serve(connection):
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")

    with listening(serve) as (url, _), pytest.raises(NoAnswer, match="broke off"):
        ask(url)


def test_a_connection_closed_without_an_answer_is_said():
    with listening(read_head) as (url, _), pytest.raises(NoAnswer, match="closed before an answer"):
        ask(url)


def test_a_body_that_cannot_be_read_is_its_own_error_and_the_next_request_a_new_connection():
    def serve(connection):
        if b"POST" not in read_head(connection):
            connection.sendall(ANSWER)

    def broken():
        yield b"{}"
        raise OSError("the disk is gone")

    with listening(serve) as (url, sockets), ApiClient(url, "key") as client:
        with pytest.raises(OSError, match="the disk is gone"):
            client.send_lines("/healthz", broken())
        client.get("/healthz")

        assert len(sockets) == 2


def test_nothing_is_sent_of_lines_whose_first_cannot_be_read(api):
    def broken():
        raise FileNotFoundError("no such file")
        yield b""

    with (
        ApiClient(api.url, "key") as client,
        pytest.raises(FileNotFoundError, match="no such file"),
    ):
        client.send_lines("/v1/labels", broken())

    assert api.requests == []


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a", "http://", "http://a:b", "a b"])
def test_an_address_that_is_none_is_named(url):
    with pytest.raises(UnusableAddress, match="address"):
        Connection(url, {})


def test_a_key_that_no_header_can_hold_is_an_error_of_one_line():
    with pytest.raises(UnusableAddress, match="Authorization header"):
        ApiClient("http://a", "key\nX-Other: 1")


def test_a_proxy_of_the_environment_is_asked(monkeypatch):
    heads = []

    def serve(connection):
        heads.append(read_head(connection))
        connection.sendall(ANSWER)

    with listening(serve) as (url, _):
        monkeypatch.setenv("http_proxy", url.replace("//", "//user:pass@"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert ask("http://clipbert.example:8000/base") == b"{}"

    first, *others = heads[0].split(b"\r\n")
    assert first == b"GET http://clipbert.example:8000/base/healthz HTTP/1.1"
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in others
    assert b"Host: clipbert.example:8000" in others


def test_no_proxy_keeps_an_address_direct(monkeypatch, api):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    api.answer("GET", "/healthz", {})

    assert ask(api.url) == b"{}"
