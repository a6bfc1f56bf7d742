"""Where the API listens."""

import errno
import socket

from cli.errors import CliError


def bind_port(host: str, port: int) -> socket.socket:
    """Take the port, or a free one for 0; nobody can connect before somebody listens on it.

    Raises:
        CliError: it is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise CliError(
                f"port {port} on {host} is taken",
                f"choose another (clipbert up --port {port + 1}) or a free one (--port 0)",
            ) from error
        raise CliError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return bound


def address_for_clients(host: str) -> str:
    """Return the address that clients of this machine reach a listening address at."""
    if host in {"0.0.0.0", ""}:  # noqa: S104  (compared, not bound)
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
