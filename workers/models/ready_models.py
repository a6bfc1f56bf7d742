"""Which models answer in this process: those that serve, without making anybody wait for a load.

A model takes seconds to load. Where people ask all the time, the one that answered before goes on
until the promoted one is loaded beside it.
"""

import dataclasses
import time
from dataclasses import dataclass
from typing import Final

from policy.serving import Serving, read_serving
from store.database import Sessions
from store.models.tables import Model
from store.table_base import Task
from workers.errors import JobError
from workers.models.model_cache import ModelCache

_BUSY_SECONDS: Final = 30.0
"""Whoever comes later than this after the one before waits for the load, and gets the new model."""


@dataclass(frozen=True)
class _Use:
    """A model that did a task, and when."""

    model: Model
    at: float


class ReadyModels:
    """Remembers which model did each task last.

    Args:
        cache: of the same process.
    """

    def __init__(self, cache: ModelCache) -> None:
        self._cache = cache
        self._last: dict[Task, _Use] = {}

    def choose(self, task: Task, wanted: Model | None) -> Model | None:
        """Choose the model that does a task now.

        Args:
            task: what is to be done.
            wanted: the one that serves; None if none does.

        Returns:
            It, or the one that did the task before while it is being loaded.
        """
        if wanted is None:
            self._last.pop(task, None)
            return None
        now = time.monotonic()
        last = self._last.get(task)
        chosen = wanted
        if (
            last is not None
            and last.model.id != wanted.id
            and now - last.at < _BUSY_SECONDS
            and last.model.visual_sha256 == wanted.visual_sha256  # reads the same tokens
            and self._cache.has(last.model)
            and not self._cache.begin_loading(wanted)
        ):
            chosen = last.model
        self._last[task] = _Use(chosen, now)
        return chosen


def read_ready(sessions: Sessions, ready: ReadyModels) -> Serving:
    """Return what answers in this process now.

    Args:
        sessions: for a transaction of its own.
        ready: of this process.

    Raises:
        JobError: `no_active_generation`.
    """
    with sessions.begin() as session:
        serving = read_serving(session)
    if serving is None:
        raise JobError("no_active_generation", "nothing is indexed yet: no generation is active")
    return dataclasses.replace(
        serving,
        retrieval=ready.choose(Task.RETRIEVAL, serving.retrieval),
        qa=ready.choose(Task.QA, serving.qa),
        multiple_choice=ready.choose(Task.MULTIPLE_CHOICE, serving.multiple_choice),
    )
