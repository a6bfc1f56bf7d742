from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.fire_times import InvalidSchedule, last_fire, next_fire

INSTANTS = st.integers(0, 366 * 86400).map(
    lambda seconds: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
EXPRESSIONS = st.sampled_from(
    ["30 2 * * *", "*/10 * * * * *", "0 * * * *", "15 1,2,3 * * 0", "0 0 L * *", "59 23 31 12 *"]
)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])


def at(text):
    return datetime.fromisoformat(text).astimezone(UTC)


def test_the_fields_are_read_in_the_time_zone():
    fire = next_fire("30 2 * * *", "Europe/Berlin", after=at("2026-01-01T12:00Z"))

    assert fire == at("2026-01-02T01:30Z")
    assert fire.tzinfo is UTC


def test_six_fields_begin_with_the_seconds():
    assert next_fire("*/10 * * * * *", "UTC", after=at("2026-01-01T12:00:03Z")) == at(
        "2026-01-01T12:00:10Z"
    )


def test_a_time_that_does_not_exist_fires_right_after_the_gap():
    before = at("2026-03-29T00:59Z")  # 01:59 in Berlin, and the next minute is 03:00

    assert next_fire("30 2 * * *", "Europe/Berlin", after=before) == at("2026-03-29T01:00Z")


def test_a_time_that_comes_twice_fires_once():
    first = next_fire("30 2 * * *", "Europe/Berlin", after=at("2026-10-24T12:00Z"))

    assert first == at("2026-10-25T00:30Z")
    assert next_fire("30 2 * * *", "Europe/Berlin", after=first) == at("2026-10-26T01:30Z")
    # In the second of the two hours the first reading of 02:30 is over.
    assert next_fire("30 2 * * *", "Europe/Berlin", after=at("2026-10-25T01:10Z")) == at(
        "2026-10-26T01:30Z"
    )


@given(EXPRESSIONS, ZONES, INSTANTS)
def test_fires_follow_each_other_and_the_last_one_is_the_last(cron, zone, instant):
    fires = [next_fire(cron, zone, after=instant)]
    fires.append(next_fire(cron, zone, after=fires[0]))

    assert instant < fires[0] < fires[1]
    assert last_fire(cron, zone, until=fires[1]) == fires[1]
    assert last_fire(cron, zone, until=fires[1] - timedelta(seconds=1)) == fires[0]


def test_fires_of_every_hour_go_on_through_the_change_of_the_clock():
    fires = [at("2026-10-24T23:00Z")]
    for _ in range(4):
        fires.append(next_fire("0 * * * *", "Europe/Berlin", after=fires[-1]))

    assert {later - earlier for earlier, later in pairwise(fires)} == {timedelta(hours=1)}


@pytest.mark.parametrize(
    "cron", ["", "nightly", "61 * * * *", "* * * * * * *", "0 0 30 2 *", "0 0 * * 9", "1 " * 3000]
)
def test_what_can_never_fire_is_refused(cron):
    with pytest.raises(InvalidSchedule) as refused:
        next_fire(cron, "UTC", after=at("2026-01-01T12:00Z"))

    assert (refused.value.code, refused.value.field) == ("invalid_cron", "cron")


@pytest.mark.parametrize("zone", ["", "Berlin", "../../etc/passwd", "/etc/localtime"])
def test_a_time_zone_must_be_a_known_one(zone):
    with pytest.raises(InvalidSchedule, match="Europe/Berlin") as refused:
        next_fire("* * * * *", zone, after=at("2026-01-01T12:00Z"))

    assert (refused.value.code, refused.value.field) == ("invalid_time_zone", "time_zone")


def test_a_time_zone_in_other_letters_is_guessed():
    with pytest.raises(InvalidSchedule, match=r"did you mean Europe/Berlin\?"):
        next_fire("* * * * *", "europe/berlin", after=at("2026-01-01T12:00Z"))
