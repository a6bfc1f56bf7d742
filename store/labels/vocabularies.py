"""Vocabularies: the lists of answers that models have learnt to choose from."""

import hashlib
import json
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from store.errors import VocabularyNotFound
from store.labels.tables import Vocabulary

# Any constant will do, as long as nothing else locks it: "answers" in ASCII.
_VERSION_LOCK = 0x616E7377657273


class VocabularyRepository:
    """Every query about vocabularies.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def keep(self, answers: Sequence[str]) -> Vocabulary:
        """Find the vocabulary with these answers in this order, or make it the next version."""
        content = json.dumps(list(answers), ensure_ascii=False, separators=(",", ":"))
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        # Until the commit: two at once would count up to the same version.
        self._session.execute(text(f"SELECT pg_advisory_xact_lock({_VERSION_LOCK})"))
        found = self._session.scalar(select(Vocabulary).where(Vocabulary.sha256 == sha256))
        if found is not None:
            return found
        last = self._session.scalar(select(func.max(Vocabulary.version))) or 0
        vocabulary = Vocabulary(version=last + 1, sha256=sha256, answers=list(answers))
        self._session.add(vocabulary)
        self._session.flush()
        return vocabulary

    def get(self, vocabulary_id: UUID) -> Vocabulary:
        """Get a vocabulary.

        Raises:
            VocabularyNotFound: there is none with this id.
        """
        vocabulary = self._session.get(Vocabulary, vocabulary_id)
        if vocabulary is None:
            raise VocabularyNotFound(vocabulary_id)
        return vocabulary

    def list(self) -> Sequence[Vocabulary]:
        """List all vocabularies, the newest first."""
        return self._session.scalars(select(Vocabulary).order_by(Vocabulary.version.desc())).all()
