"""What the planner thinks of a query, where the way to an answer is chosen by it."""

from typing import Any

from sqlalchemy import Select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement, Executable


class _Explain(Executable, ClauseElement):
    inherit_cache = False

    def __init__(self, query: Select[Any]) -> None:
        self.query = query


@compiles(_Explain)
def _compile(element: _Explain, compiler: SQLCompiler, **options: object) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.query, **options)}"


def estimated_rows(session: Session, query: Select[Any]) -> int:
    """Estimate how many rows a query has, from the statistics of its tables; it is not run."""
    (plan,) = session.execute(_Explain(query)).scalar_one()
    return int(plan["Plan"]["Plan Rows"])
