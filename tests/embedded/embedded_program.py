"""Start the embedded services of a folder as some user, say so, and stop them when told to.

Run as a program of its own by test_embedded.py: FOLDER UID PROGRAMS. UID is `-` to stay who we are.
PROGRAMS is a folder to find the servers in first, for users who cannot pass to where we are
installed, or `-`. Prints one line of JSON, waits for a line, stops the services and ends.
"""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import redis
import sqlalchemy

from embedded.errors import EmbeddedServicesError
from embedded.servers import EmbeddedServices


def main():
    folder, uid, programs = sys.argv[1:]
    if programs != "-":
        sys.path.insert(0, programs)
    if uid != "-":
        load_the_rest()
        os.chdir("/")
        os.setgroups([])
        os.setgid(int(uid))
        os.setuid(int(uid))
        os.umask(0o077)
    begin = time.monotonic()
    try:
        services = EmbeddedServices.start(Path(folder))
    except EmbeddedServicesError as error:
        print(json.dumps({"error": str(error)}), flush=True)  # noqa: T201
        sys.stdin.readline()
        return
    seconds = time.monotonic() - begin
    url = sqlalchemy.make_url(services.database_url)
    with psycopg.connect(
        url.set(drivername="postgresql").render_as_string(hide_password=False)
    ) as connection:
        # Of two at once both may find that there is no table.
        connection.execute("SELECT pg_advisory_xact_lock(1)")
        connection.execute("CREATE TABLE IF NOT EXISTS runs (at timestamptz DEFAULT now())")
        connection.execute("INSERT INTO runs DEFAULT VALUES")
        num_runs = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        postgres_pid = (
            connection.execute("SELECT pg_read_file('postmaster.pid')")
            .fetchone()[0]
            .splitlines()[0]
        )
        cluster = connection.execute("SHOW data_directory").fetchone()[0]
    with redis.Redis.from_url(services.redis_url) as client:
        num_redis_runs = client.incr("runs")
        redis_pid = client.info("server")["process_id"]
    answer = {
        "database_url": services.database_url,
        "redis_url": services.redis_url,
        "started_here": services.started_here,
        "seconds": seconds,
        "num_runs": num_runs,
        "num_redis_runs": num_redis_runs,
        "postgres_pid": int(postgres_pid),
        "redis_pid": redis_pid,
        "cluster": cluster,
    }
    print(json.dumps(answer), flush=True)  # noqa: T201
    sys.stdin.readline()
    services.stop()


def load_the_rest():
    """Import what is imported on first use, as Python may lie where the user cannot read it."""
    for connect in (
        lambda: psycopg.connect(host="/nowhere"),
        lambda: redis.Redis.from_url("redis://:x@localhost:1/0").ping(),
    ):
        with suppress(psycopg.Error, redis.RedisError):
            connect()


if __name__ == "__main__":
    main()
