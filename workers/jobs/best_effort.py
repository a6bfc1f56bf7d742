"""Work that may fail without harm: an edge that logs whatever comes of it, and goes on.

Stores fail in ways of their own, and what is done here is done again, by the next round or by
maintenance.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)


@contextmanager
def best_effort(event: str, **facts: object) -> Iterator[None]:
    """Log what the block raises as an event, with its facts, and go on.

    with best_effort("curves.not_stored", name=name):
        put_curves(...)
    """
    try:
        yield
    except Exception:
        log.exception(event, **facts)
