"""How long does each operation take in a database of a million videos and 2.4 million jobs?

    python benchmarks/growth.py        fills an embedded PostgreSQL of its own: minutes, some GB
    python benchmarks/growth.py --rows 100000

Each operation is done several times in a transaction that is rolled back; of maintenance an
operation is one step. At most 50 ms is what it may take on a machine that does nothing else, with
all of its queries; the slowest of these stands beside it.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.orm import Session

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from benchmarks.growing.library import Library, fill  # noqa: E402
from benchmarks.growing.operations import Operation, operations  # noqa: E402
from embedded.servers import EmbeddedServices  # noqa: E402
from store.database import Sessions, make_sessions, upgrade_schema  # noqa: E402

OUT = PROJECT / "benchmarks" / "out" / "growth.json"
MOST_MS = 50.0


@dataclass(frozen=True)
class Row:
    operation: str
    median_ms: float
    max_ms: float
    slowest_query_ms: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="videos")
    parser.add_argument("--times", type=int, default=5, help="of each operation, after one untimed")
    parser.add_argument("--folder", type=Path, help="where the database is made; it is removed")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="clipbert-growth-", dir=arguments.folder))
    folder.chmod(0o755)
    try:
        with EmbeddedServices.start(folder) as services:
            upgrade_schema(services.database_url)
            sessions = make_sessions(services.database_url)
            began = time.monotonic()
            library = fill(sessions, arguments.rows, vectors=min(arguments.rows, 100_000))
            print(f"filled in {time.monotonic() - began:.0f} s", flush=True)
            rows = [
                measure(name, operation, library, sessions, arguments.times)
                for name, operation in operations()
            ]
            sessions.kw["bind"].dispose()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    over = [row.operation for row in rows if row.median_ms > MOST_MS]
    print(f"{len(over)} of {len(rows)} over {MOST_MS:.0f} ms: {', '.join(over) or 'none'}")


def measure(
    name: str, operation: Operation, library: Library, sessions: Sessions, times: int
) -> Row:
    taken, slowest = [], []
    for _ in range(times + 1):
        with sessions() as session:
            with timed_queries(session) as queries:
                began = time.perf_counter()
                operation(library, session)
                taken.append((time.perf_counter() - began) * 1000)
            slowest.append(max(queries))
            session.rollback()
    row = Row(name, statistics.median(taken[1:]), max(taken[1:]), statistics.median(slowest[1:]))
    print(
        f"{row.median_ms:8.1f} ms median {row.max_ms:8.1f} ms max "
        f"{row.slowest_query_ms:8.1f} ms its slowest query  {name}",
        flush=True,
    )
    return row


@contextmanager
def timed_queries(session: Session) -> Iterator[list[float]]:
    """Note how many milliseconds each query of a session takes."""
    connection = session.connection()
    taken: list[float] = []
    began = 0.0

    def start(*_: object) -> None:
        nonlocal began
        began = time.perf_counter()

    def end(*_: object) -> None:
        taken.append((time.perf_counter() - began) * 1000)

    event.listen(connection, "before_cursor_execute", start)
    event.listen(connection, "after_cursor_execute", end)
    try:
        yield taken
    finally:
        event.remove(connection, "before_cursor_execute", start)
        event.remove(connection, "after_cursor_execute", end)


if __name__ == "__main__":
    main()
