"""What `clipbert up` says where one runs already, and of devices that are not there."""

import os
from pathlib import Path

import pytest

from cli.up_options import UpOptions
from embedded.lock import hold_lock
from embedded.running_up import RunningUp, write_running


@pytest.fixture
def data(tmp_path):
    """A data folder on which an `up` runs, on port 8123 and the CPU, for the folder `films`."""
    (tmp_path / "films").mkdir()
    options = UpOptions(
        data=tmp_path,
        host="127.0.0.1",
        port=8123,
        media_roots=(tmp_path / "films",),
        device="cpu",
        ingest_workers=3,
        model=None,
    )
    running = RunningUp(os.getpid(), "http://127.0.0.1:8123", True, {}, options.as_strings())
    with hold_lock(tmp_path):
        write_running(tmp_path, running)
        yield tmp_path


@pytest.mark.parametrize("where", [[], ["--background"]])
def test_options_that_are_not_those_of_what_runs_are_named(clipbert, data, where):
    said = clipbert(
        *("up", *where, "--data", data, "--port", 9001, "--host", "1.2.3.4", "--device", "foo"),
        *("--model", "/m", "--ingest-workers", 2, "--media-root", "/", "--api-processes", 2),
        "--verbose",
        code=1,
    )

    for named in (
        *(
            "--port is 8123, not 9001",
            "--host is 127.0.0.1, not 1.2.3.4",
            "--device is cpu, not foo",
        ),
        *("--model is the default, not /m", "--ingest-workers is 3, not 2"),
        *("--api-processes is 1, not 2", "--verbose is off, not on"),
        *(f"--media-root is {data}/films, not /", "clipbert down"),
    ):
        assert named in said.err


@pytest.mark.parametrize("where", [[], ["--background"]])
def test_the_same_options_and_none_are_answered_with_where_it_runs(clipbert, data, where):
    same = ("--port", 8123, "--device", "cpu", "--media-root", data / "films")

    for options in ((), same, ("--port", 0)):
        said = clipbert("up", *where, "--data", data, *options)

        assert said.out.startswith(f"already running on {data} at http://127.0.0.1:8123")
        assert len(said.out.splitlines()) == 1  # and no line of the log of what runs


@pytest.mark.parametrize("device", ["foo", "cuda:", "cuda:-1", "cuda:0x", "cuda:٣", "CPU", ""])
def test_what_is_no_device_is_said_before_anything_starts(clipbert, tmp_path, device):
    said = clipbert("up", "--data", tmp_path / "new", "--device", device, code=1)

    assert f"--device {device}: there is no such device: say auto, cpu, cuda or cuda:N" in said.err
    assert not Path(tmp_path / "new").exists()
