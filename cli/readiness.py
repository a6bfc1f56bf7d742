"""Whether a deployment answers: its API, and its workers over the queue."""

import http.client
from urllib.parse import urlsplit


def api_is_ready(api_url: str, *, timeout_seconds: float = 2.0) -> bool:
    """Ask the API whether it can serve; False also when nobody answers."""
    parts = urlsplit(api_url)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(parts.netloc, timeout=timeout_seconds)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def answering_workers(redis_url: str, *, timeout_seconds: float = 1.0) -> set[str]:
    """Ask every worker for a sign of life.

    Returns:
        The part before the @ of each worker that answered in time, such as {"ingest"}.
    """
    from celery import Celery
    from kombu.exceptions import OperationalError

    from workers.dispatch import KEY_PREFIX

    app = Celery("cli.readiness", broker=redis_url, set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": KEY_PREFIX, "socket_timeout": 5.0}
    try:
        answers = app.control.ping(timeout=timeout_seconds) or []
    except (OSError, OperationalError):
        return set()
    finally:
        app.close()
    return {name.split("@", maxsplit=1)[0] for answer in answers for name in answer}
