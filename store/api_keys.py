"""Keys of the API. The plain key is shown once; its hash is kept."""

import hashlib
import secrets
import string
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.identifiers import new_id
from store.table_base import Table

ALPHABET = string.ascii_letters + string.digits
RANDOM_CHARACTERS = 40  # 238 bits: so much chance needs no slow hash
SHOWN_CHARACTERS = 9


class ApiKey(Table):
    """A key of the API; only its hash is kept. One that was revoked stays, as over since then."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    prefix: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class ApiKeyRepository:
    """Every query about API keys.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(self, name: str) -> str:
        """Make a key.

        Args:
            name: whose it is, for people to read.

        Returns:
            The plain key, `cb_` and letters and digits; it cannot be had again.
        """
        plain = "cb_" + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARACTERS))
        key = ApiKey(name=name, prefix=plain[:SHOWN_CHARACTERS], sha256=hash_of(plain))
        self._session.add(key)
        self._session.flush()
        return plain

    def verify(self, plain: str) -> ApiKey | None:
        """Find a key that was given in plain; None if it is unknown or over."""
        not_over = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
        query = select(ApiKey).where(ApiKey.sha256 == hash_of(plain), not_over)
        return self._session.scalar(query)

    def all(self) -> Sequence[ApiKey]:
        """List all keys, also those that are over, the newest last."""
        return self._session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)).all()

    def revoke(self, key_id: UUID) -> bool:
        """End a key now; False if it was over already, or is not there."""
        not_over = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
        ended = (
            update(ApiKey)
            .where(ApiKey.id == key_id, not_over)
            .values(expires_at=func.now())
            .returning(ApiKey.id)
        )
        return self._session.scalar(ended) is not None


def hash_of(plain: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()
