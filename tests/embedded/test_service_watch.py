"""The look after servers and disks, with a disk and servers that do as the test says."""

from io import StringIO

import pytest

from embedded.disk_reserve import DiskReserve
from embedded.errors import EmbeddedServicesError
from embedded.process_log import ProcessLog
from embedded.servers import EmbeddedServices, Restart
from embedded.service_watch import ServiceWatch
from store.disk_space import DiskState

MIB = 2**20


class FakeDisk:
    def __init__(self):
        self.state = DiskState(True, 500 * MIB, 400 * MIB)

    def check(self):
        return self.state

    def fill(self, free_bytes=0):
        self.state = DiskState(False, free_bytes, 0, "/data has 0 MiB free and needs 64 MiB")

    def clear(self):
        self.state = DiskState(True, 500 * MIB, 400 * MIB)


class FakeServers:
    """Servers that are dead, or not, and come up again, or not."""

    def __init__(self):
        self.dead, self.error = False, None
        self.num_starts = 0
        self.keeps_queues = True

    def restart_dead(self):
        if not self.dead:
            return []
        self.num_starts += 1
        self.dead = self.error is not None
        return [Restart("PostgreSQL", self.error)]

    def keep_queues_on_disk(self, keeps):
        self.keeps_queues = keeps
        return True


@pytest.fixture
def watched(tmp_path):
    disk, servers, said = FakeDisk(), FakeServers(), StringIO()
    reserve = DiskReserve(tmp_path / "reserve", size_bytes=MIB)
    watch = ServiceWatch(servers, ProcessLog([], stream=said), disk=disk, reserve=reserve)
    return watch, disk, servers, reserve, said


def test_room_that_a_killed_process_did_not_take_whole_is_taken(watched, tmp_path):
    watch, _, _, reserve, _ = watched
    (tmp_path / "reserve").touch()

    watch.check()

    assert reserve.is_held()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= MIB


def test_room_is_kept_back_and_given_up_when_the_disk_is_full(watched, tmp_path):
    watch, disk, _, reserve, _ = watched
    watch.check()
    held_bytes = (tmp_path / "reserve").stat().st_blocks * 512

    disk.fill(free_bytes=10 * MIB)
    watch.check()
    held_below_the_watermark = reserve.is_held()
    disk.fill(free_bytes=0)
    watch.check()
    held_on_a_full_disk = reserve.is_held()
    disk.clear()
    watch.check()

    assert held_bytes >= MIB
    assert (held_below_the_watermark, held_on_a_full_disk) == (True, False)
    assert reserve.is_held()


def test_redis_does_without_its_file_while_there_is_no_room(watched):
    watch, disk, servers, _, said = watched
    disk.fill()
    watch.check()
    kept = servers.keeps_queues
    disk.clear()
    watch.check()

    assert (kept, servers.keeps_queues) == (False, True)
    assert "nothing new is taken in while the disk is full" in said.getvalue()
    assert "there is room again" in said.getvalue()


def test_a_server_that_does_not_start_on_a_full_disk_is_started_when_there_is_room(watched):
    watch, disk, servers, _, _ = watched
    disk.fill()
    servers.dead, servers.error = True, EmbeddedServicesError("could not write lock file")
    for _ in range(3):
        watch.check()
    tries = servers.num_starts

    disk.clear()
    servers.error = None
    watch.check()

    assert tries == 1  # it backs off
    assert (servers.num_starts, servers.dead) == (2, False)


def test_a_real_redis_goes_on_without_its_file_and_with_it_again(data_folder):
    import redis

    with (
        EmbeddedServices.start_redis_only(data_folder) as services,
        redis.Redis.from_url(services.redis_url, decode_responses=True) as client,
    ):
        assert services.keep_queues_on_disk(False)
        without = client.config_get("appendonly")["appendonly"]
        client.rpush("queue", "ring")
        assert services.keep_queues_on_disk(True)
        with_it = client.config_get("appendonly")["appendonly"]
        kept = client.lrange("queue", 0, -1)

    assert (without, with_it, kept) == ("no", "yes", ["ring"])
