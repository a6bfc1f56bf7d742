"""`python -m api`: serve until SIGTERM or SIGINT, then let requests end."""

import asyncio
import resource
import socket
from types import FrameType

import structlog
import uvicorn
from uvicorn.protocols.http.flow_control import CLOSE_HEADER

from api.main import create_app
from api.middleware.access_log import configure_logging
from api.middleware.connections import ConnectionKeeper, ConnectionLimits
from api.services.waiting import WaitingRoom
from api.settings import ApiSettings

_GRACE_SECONDS = 10  # for uploads and downloads under way; requests that wait go at once
_ACCEPTED_SECONDS = 0.05  # until connections that were just accepted are known
_OTHER_FILES = 512  # open ones beside the connections: the database, Redis, media

log = structlog.get_logger("api")


class _Server(uvicorn.Server):
    """A server that sends waiting requests home before it waits for the others."""

    def __init__(
        self, config: uvicorn.Config, waiting_room: WaitingRoom, keeper: ConnectionKeeper
    ) -> None:
        super().__init__(config)
        self._waiting_room, self._keeper = waiting_room, keeper
        self._keeping: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._waiting_room.close()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._keeping = asyncio.create_task(self._keeper.keep())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._keeper.is_stopping = True
        # Whoever keeps a connection alive is told with its last answer to open another.
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE_HEADER]
        # asyncio drops what it accepted a moment before its server is closed. So it stops accepting
        # first; what it does not accept waits in the socket for whoever else listens on it.
        for server in self.servers:
            for listening in server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
        await asyncio.sleep(_ACCEPTED_SECONDS)
        try:
            await super().shutdown(sockets)
        finally:
            if self._keeping is not None:
                self._keeping.cancel()


def main() -> None:
    configure_logging()
    settings = ApiSettings()
    app = create_app(settings)
    keeper = ConnectionKeeper(
        ConnectionLimits(
            head_seconds=settings.head_seconds,
            body_seconds=settings.body_seconds,
            idle_seconds=settings.idle_seconds,
            max_connections=settings.max_connections,
        )
    )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=keeper.protocol_class(),
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.idle_seconds,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    _allow_files(settings.max_connections + _OTHER_FILES)
    log.info("api.starting", host=settings.host, port=settings.port)
    sockets = None if settings.listen_fd is None else [_listening_socket(settings.listen_fd)]
    _Server(config, app.state.services.waiting_room, keeper).run(sockets)


def _listening_socket(descriptor: int) -> socket.socket:
    """Take over the socket that whoever started us listens on."""
    try:
        handed_over = socket.socket(fileno=descriptor)
        is_listening = handed_over.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise SystemExit(
            f"API_LISTEN_FD={descriptor} is not a socket: {error.strerror}; "
            "leave it out to listen on API_HOST and API_PORT"
        ) from error
    if not is_listening:
        raise SystemExit(f"API_LISTEN_FD={descriptor} is a socket that does not listen")
    return handed_over


def _allow_files(wanted: int) -> None:
    """Allow this process to open so many files, as far as the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


if __name__ == "__main__":
    main()
