"""When a schedule fires: a cron expression read in a time zone. Pure.

Five fields as in crontab(5), `30 2 * * *`, or six with the seconds first, `*/10 * * * * *`. At a
change of the clock five fields do as Debian's cron: a time that does not exist is fired right after
the gap, one that comes twice is fired the first time only. Where minute or hour is `*`, and with
seconds, it goes by elapsed time.
"""

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from policy.errors import PolicyError

_MAX_CRON_LENGTH: Final = 200


class InvalidSchedule(PolicyError):
    """A schedule that never could fire as it is written.

    Attributes:
        code: `invalid_cron` or `invalid_time_zone`.
        field: which of its fields.
    """

    def __init__(self, code: str, message: str, *, field: str) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


def next_fire(cron: str, time_zone: str, *, after: datetime) -> datetime:
    """Compute when a schedule fires next.

        next_fire("30 2 * * *", "Europe/Berlin", after=...)  ->  2026-01-02 01:30:00+00:00

    Args:
        cron: five fields, or six with the seconds first.
        time_zone: name of the IANA database, in which the fields are read.
        after: an instant; the fire is later.

    Returns:
        An instant in UTC.

    Raises:
        InvalidSchedule: `invalid_cron` or `invalid_time_zone`.
    """
    zone = _read_zone(time_zone)
    if len(cron) > _MAX_CRON_LENGTH:
        raise _invalid_cron(cron[:_MAX_CRON_LENGTH], "too long")
    try:
        for fire in CronSim(cron, after.astimezone(zone)):
            # In the hour that comes twice the first reading may be before the instant.
            if fire.astimezone(UTC) > after:
                return fire.astimezone(UTC)
    except (CronSimError, ValueError) as error:
        raise _invalid_cron(cron, str(error) or "not understood") from error
    raise _invalid_cron(cron, "there is no such day")


def last_fire(cron: str, time_zone: str, *, until: datetime) -> datetime:
    """Compute when a schedule should have fired last, at an instant or before it.

    Raises:
        InvalidSchedule: `invalid_cron` or `invalid_time_zone`.
    """
    zone = _read_zone(time_zone)
    begin = until.replace(microsecond=0) + timedelta(seconds=1)  # the search excludes its begin
    try:
        for fire in CronSim(cron, begin.astimezone(zone), reverse=True):
            if fire.astimezone(UTC) <= until:
                return fire.astimezone(UTC)
    except (CronSimError, ValueError) as error:
        raise _invalid_cron(cron, str(error) or "not understood") from error
    raise _invalid_cron(cron, "there is no such day")


def _read_zone(name: str) -> ZoneInfo:
    zones = available_timezones()
    if name not in zones:
        alike = min((zone for zone in zones if zone.lower() == name.lower()), default=None)
        hint = f"did you mean {alike}?" if alike else "take a name such as UTC or Europe/Berlin"
        raise InvalidSchedule(
            "invalid_time_zone",
            f"there is no time zone {name!r}: {hint}",
            field="time_zone",
        )
    return ZoneInfo(name)


def _invalid_cron(cron: str, why: str) -> InvalidSchedule:
    return InvalidSchedule(
        "invalid_cron",
        f"cron {cron!r} cannot be read ({why}): five fields such as '30 2 * * *', or six with the "
        "seconds first such as '*/10 * * * * *'",
        field="cron",
    )
