"""`python -m api`: serve until SIGTERM or SIGINT, then let requests end."""

from types import FrameType

import structlog
import uvicorn

from api.access_log import configure_logging
from api.main import create_app
from api.settings import ApiSettings
from api.waiting import WaitingRoom

_GRACE_SECONDS = 10  # for uploads and downloads under way; requests that wait go at once

log = structlog.get_logger("api")


class _Server(uvicorn.Server):
    """A server that sends waiting requests home before it waits for the others."""

    def __init__(self, config: uvicorn.Config, waiting_room: WaitingRoom) -> None:
        super().__init__(config)
        self._waiting_room = waiting_room

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._waiting_room.close()
        super().handle_exit(sig, frame)


def main() -> None:
    configure_logging()
    settings = ApiSettings()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    log.info("api.starting", host=settings.host, port=settings.port)
    _Server(config, app.state.services.waiting_room).run()


if __name__ == "__main__":
    main()
