import time

from store.identifiers import new_id


def test_ids_come_in_the_order_they_were_made():
    ids = [new_id() for _ in range(10_000)]

    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_an_id_is_of_version_7_and_tells_its_millisecond():
    before = time.time_ns() // 1_000_000
    id_ = new_id()

    assert id_.version == 7
    assert id_.variant == "specified in RFC 4122"
    assert before <= id_.int >> 80 <= time.time_ns() // 1_000_000 + 1000
