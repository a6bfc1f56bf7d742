"""Ids that sort by the time they were made: UUID version 7 of RFC 9562."""

import secrets
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last_tick = 0


def new_id() -> UUID:
    """Make a UUIDv7, later in order than every id this process made before.

    The 12 bits after the milliseconds count its 4096ths (RFC 9562, section 6.2, method 3), so that
    rows inserted together keep their order. Python has `uuid.uuid7` from 3.14 only, and PostgreSQL
    `uuidv7()` from 18 only.
    """
    global _last_tick  # noqa: PLW0603 - one clock per process is the point
    with _lock:
        tick = max(time.time_ns() * 4096 // 1_000_000, _last_tick + 1)
        _last_tick = tick
    milliseconds, fraction = divmod(tick, 4096)
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | fraction << 64
    value |= 0b10 << 62 | secrets.randbits(62)
    return UUID(int=value)
