"""Disks with and without room."""

import errno
import os

import pytest
import sqlalchemy.exc

from store.disk_space import DiskWatch, is_storage_full, watch_disks
from store.settings import StoreSettings

GIB, MIB = 2**30, 2**20


def free_bytes(folder):
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


@pytest.mark.parametrize(
    ("total_bytes", "needed_bytes"),
    [(10_000 * GIB, GIB), (20 * GIB, GIB), (4 * GIB, 4 * GIB // 10), (300 * MIB, 64 * MIB)],
)
def test_the_watermark_is_a_gibibyte_or_a_tenth_of_a_smaller_disk(total_bytes, needed_bytes):
    watch = DiskWatch([], min_free_bytes=GIB, min_free_percent=10)

    assert watch.watermark_bytes(total_bytes) == needed_bytes


def test_a_disk_below_its_watermark_has_no_room_and_says_which(tmp_path):
    watch = DiskWatch([tmp_path / "not" / "there"], min_free_bytes=2**60, min_free_percent=100)

    assert not watch.state.has_room
    assert watch.state.spare_bytes == 0
    assert str(tmp_path) in watch.state.reason


def test_a_disk_above_it_says_how_much_can_be_taken_in(tmp_path):
    watch = DiskWatch([tmp_path], min_free_bytes=MIB, min_free_percent=100)

    assert watch.state.has_room
    assert watch.state.spare_bytes == pytest.approx(free_bytes(tmp_path) - MIB, rel=0.1)


def test_nothing_is_taken_in_again_before_there_is_a_quarter_more(tmp_path):
    levels = iter([0.99, 1.1, 1.3, 1.1])

    class Watch(DiskWatch):
        """A disk whose watermark moves, as if what is free did."""

        def watermark_bytes(self, total_bytes):
            return int(free_bytes(tmp_path) / next(levels))

    watch = Watch([tmp_path], min_free_bytes=1, min_free_percent=1)
    seen = [watch.state.has_room] + [watch.check().has_room for _ in range(3)]

    assert seen == [False, False, True, True]


def test_zero_turns_the_watermark_off_and_an_error_still_tells(tmp_path):
    watch = DiskWatch([tmp_path], min_free_bytes=0, min_free_percent=100)
    before = watch.state.has_room

    watch.note_full()

    assert (before, watch.state.has_room) == (True, False)


def test_the_blobs_disk_is_watched_if_it_is_here(tmp_path):
    full = {"min_free_bytes": 2**60, "min_free_percent": 100, "database_url": "postgresql://x"}

    local = watch_disks(StoreSettings(blob_url=tmp_path.as_uri(), **full))
    remote = watch_disks(StoreSettings(blob_url="s3://bucket/prefix", **full))

    assert (local.state.has_room, remote.state.has_room) == (False, True)


class VideoError(Exception):
    """Any error of ours, whose sentence names a file."""


class _ServerError(Exception):
    def __init__(self, sqlstate):
        super().__init__("could not write")
        self.sqlstate = sqlstate


def caused_by(cause):
    error = RuntimeError("the export failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        sqlalchemy.exc.OperationalError("INSERT", {}, _ServerError("53100")),
        caused_by(OSError(errno.ENOSPC, "No space left on device")),
        RuntimeError('Os { code: 28, kind: StorageFull, message: "No space left on device" }'),
        RuntimeError("MISCONF Errors writing to the AOF file: No space left on device"),
    ],
)
def test_each_way_to_say_that_a_disk_is_full_is_understood(error):
    assert is_storage_full(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ENOENT, "No such file or directory"),
        sqlalchemy.exc.OperationalError("INSERT", {}, _ServerError("57P01")),
        ValueError("full of nonsense"),
        FileNotFoundError(errno.ENOENT, "No such file", "no space left on device.mp4"),
        VideoError("'no space left on device.mp4' is not a video"),
    ],
)
def test_other_errors_are_not_taken_for_a_full_disk(error):
    assert not is_storage_full(error)


def test_a_real_full_device_is_understood():
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="No space") as raised:
            os.write(descriptor, b"x")
    finally:
        os.close(descriptor)

    assert is_storage_full(raised.value)
