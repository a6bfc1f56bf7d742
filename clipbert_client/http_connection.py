"""One HTTP connection to the service, of the standard library.

httpx takes longer to import than most commands take to run. What is not here is not needed:
redirects (the API sends none), cookies, compressed answers.
"""

import http.client
import os
import select
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from clipbert_client.errors import UnusableAddress

if TYPE_CHECKING:
    import ssl

CONNECT_SECONDS = 10.0
SEND_SECONDS = 120.0
PIECE_BYTES = 1 << 16
_DEFAULT_PORTS = {"http": 80, "https": 443}
_FIRST_ERROR_STATUS = 400


class NoAnswer(Exception):
    """The service could not be reached, or broke off."""


@dataclass
class Answer:
    """The head of what came back; its body is still to be read.

    Attributes:
        status: such as 200.
        reason: such as "OK".
        headers: their names in lower case.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    _response: http.client.HTTPResponse = field(repr=False)
    _connection: "Connection" = field(repr=False)
    _is_last: bool = False  # the connection cannot be used again

    @property
    def is_error(self) -> bool:
        return self.status >= _FIRST_ERROR_STATUS

    def read(self) -> bytes:
        """Read the whole body.

        Raises:
            NoAnswer: it broke off.
        """
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """Read the body piece by piece.

        Raises:
            NoAnswer: it broke off.
        """
        announced = self.headers.get("content-length", "")
        left = int(announced) if announced.isdigit() else None
        try:
            while piece := self._response.read1(PIECE_BYTES):
                if left is not None:
                    left -= len(piece)
                yield piece
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise NoAnswer(_reason(error)) from error
        self._response.close()  # read to its end: the connection can be used again
        if self._is_last or left:
            self._connection.close()
        if left:
            raise NoAnswer(f"the answer broke off, {left} bytes before its end")

    def close(self) -> None:
        """Read no more of it; what was not read costs the connection."""
        if not self._response.isclosed():
            self._connection.close()


class Connection:
    """Sends one request after the other; connects when it must.

    Args:
        url: of the service, with its scheme; a path in it is put before every path.
        headers: sent with every request.

    Raises:
        UnusableAddress: the url or a header cannot be used.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise UnusableAddress(f"the address {url!r} has no usable port: {error}") from None
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise UnusableAddress(
                f"{url!r} is not the address of a service",
                "it begins with http:// or https://, such as http://127.0.0.1:8000",
            )
        for name, value in headers.items():
            if not (value.isascii() and value.isprintable()):
                raise UnusableAddress(f"the {name} header cannot hold what it is given")
        self._is_encrypted = parts.scheme == "https"
        self._host, self._port = parts.hostname, port or _DEFAULT_PORTS[parts.scheme]
        self._prefix = parts.path.rstrip("/")
        self._headers = dict(headers)
        self._proxy = _proxy_for(parts.scheme, parts.netloc.rpartition("@")[2])
        self._http: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Iterable[bytes] | None = None,
        size_bytes: int | None = None,
        headers: Mapping[str, str] | None = None,
        read_seconds: float | None,
    ) -> Answer:
        """Send a request and wait for the head of its answer.

        Args:
            method: such as GET.
            path: below the service's url, with the query, encoded.
            body: whole, or piece by piece.
            size_bytes: of a body in pieces; None if nobody knows: it goes out in chunks.
            headers: beside those of every request.
            read_seconds: the longest silence while waiting for the answer; None: for ever.

        Raises:
            NoAnswer: the service cannot be reached, or broke off.
            Exception: whatever the body raises while it is read.
        """
        if isinstance(body, bytes):
            size_bytes = len(body)
        in_chunks = body is not None and size_bytes is None
        try:
            with _no_answer():
                connection = self._open()
                self._send_head(
                    connection,
                    method,
                    path,
                    headers=headers or {},
                    size_bytes=size_bytes,
                    in_chunks=in_chunks,
                )
            pieces = [body] if isinstance(body, bytes) else body or ()
            is_whole = _send_body(connection, pieces, in_chunks=in_chunks)
            with _no_answer():
                if connection.sock is not None:
                    connection.sock.settimeout(read_seconds)
                response = connection.getresponse()
        except BaseException:
            self.close()  # half a request is on it: nothing more can be sent
            raise
        received = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, response.reason, received, response, self, not is_whole)

    def _open(self) -> http.client.HTTPConnection:
        if self._http is not None and _is_stale(self._http):
            self.close()
        if self._http is None:
            self._http = self._connect()
        return self._http

    def _connect(self) -> http.client.HTTPConnection:
        host, port, tunnel_headers = self._host, self._port, {}
        if self._proxy is not None:
            host, port, tunnel_headers = self._proxy.host, self._proxy.port, self._proxy.headers
        if self._is_encrypted:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=CONNECT_SECONDS, context=_trusting()
            )
            if self._proxy is not None:
                connection.set_tunnel(self._host, self._port, tunnel_headers)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        connection.connect()
        connection.sock.settimeout(SEND_SECONDS)
        return connection

    def _send_head(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        size_bytes: int | None,
        in_chunks: bool,
    ) -> None:
        target = f"{self._prefix}{path}"
        sent = {**self._headers, **headers}
        if self._proxy is not None and not self._is_encrypted:
            target = f"http://{_authority(self._host, self._port)}{target}"
            sent |= self._proxy.headers
        if connection.sock is not None:
            connection.sock.settimeout(SEND_SECONDS)
        connection.putrequest(method, target, skip_host=True)
        connection.putheader("Host", _authority(self._host, self._port))
        for name, value in sent.items():
            connection.putheader(name, value)
        if in_chunks:
            connection.putheader("Transfer-Encoding", "chunked")
        elif size_bytes is not None or method not in {"GET", "HEAD", "DELETE"}:
            connection.putheader("Content-Length", str(size_bytes or 0))
        connection.endheaders()


@dataclass(frozen=True)
class _Proxy:
    host: str
    port: int
    headers: dict[str, str]


@contextmanager
def _no_answer() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(_reason(error)) from error


def _send_body(
    connection: http.client.HTTPConnection, pieces: Iterable[bytes], *, in_chunks: bool
) -> bool:
    """Send a body; False when the other side ceased to listen: it may have answered already."""
    for piece in pieces:
        if not piece:
            continue  # in chunks it would be the end
        framed = b"%x\r\n%b\r\n" % (len(piece), piece) if in_chunks else piece
        if not _send(connection, framed):
            return False
    return _send(connection, b"0\r\n\r\n") if in_chunks else True


def _send(connection: http.client.HTTPConnection, data: bytes) -> bool:
    try:
        connection.send(data)
    except TimeoutError as error:
        raise NoAnswer(_reason(error)) from error
    except OSError:
        return False
    return True


def _is_stale(connection: http.client.HTTPConnection) -> bool:
    """Whether the other side closed a connection that was kept."""
    if connection.sock is None:
        return True
    # Nothing was asked: what can be read now is an end, or what nobody asked for.
    return bool(select.select([connection.sock], [], [], 0)[0])


def _authority(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port in _DEFAULT_PORTS.values() else f"{shown}:{port}"


def _trusting() -> "ssl.SSLContext":
    import ssl

    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and not ssl.get_default_verify_paths().capath:
        with suppress(ImportError):  # a small container has no certificates of its own
            import certifi

            context.load_verify_locations(certifi.where())
    return context


def _proxy_for(scheme: str, authority: str) -> _Proxy | None:
    """Find the proxy that the environment names for an address."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None  # and urllib.request need not be imported
    from urllib import request

    proxies = request.getproxies()
    url = proxies.get(scheme) or proxies.get("all")
    if not url or request.proxy_bypass(authority):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise UnusableAddress(
            f"the proxy {url!r} of the environment cannot be used: only http:// ones can",
            "NO_PROXY names the addresses that are asked without one",
        )
    headers = {}
    if parts.username:
        import base64

        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login).decode()}"
    return _Proxy(parts.hostname, parts.port or _DEFAULT_PORTS["http"], headers)


def _reason(error: Exception) -> str:
    """Describe in a few words why there was no answer."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed before an answer came"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer broke off"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
