"""Where the API listens."""

import errno
import socket

from cli.errors import CliError


def free_port(host: str, port: int) -> int:
    """Check that the port can be listened on, or choose one for 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise CliError(
                    f"port {port} on {host} is taken",
                    f"choose another (clipbert up --port {port + 1}) or a free one (--port 0)",
                ) from error
            raise CliError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        return int(probe.getsockname()[1])


def address_for_clients(host: str) -> str:
    """Return the address that clients of this machine reach a listening address at."""
    if host in {"0.0.0.0", ""}:  # noqa: S104  (compared, not bound)
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
