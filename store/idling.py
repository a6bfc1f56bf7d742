"""Transactions that may lie between two statements for longer than store.database lets them."""

from sqlalchemy import text
from sqlalchemy.orm import Session


def bear_idling(session: Session, *, seconds: float) -> None:
    """Let the transaction of a session lie longer, or less long, between two statements."""
    query = text("SELECT set_config('idle_in_transaction_session_timeout', :limit, true)")
    session.execute(query, {"limit": f"{seconds * 1000:.0f}"})
