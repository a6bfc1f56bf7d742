"""Serve the searches and questions that are due: people wait for them. Imports torch.

All that people wait for lies on one desk, and is worked on in slices of a quarter of a second. In
between, what has come meanwhile is put on the desk too, so that nothing nests: a question that
comes in the middle of an exhaustive search is one more thing on the desk. Questions, short searches
and exhaustive ones have turns, in the proportion of _SHARES, so that neither waits for ever behind
the others. Embedding does the same between two slices of its own.

An exhaustive search keeps what it has scored (workers.answering.library_scores). At the end of a
look it is handed back, so that it outlives no limit on a task, and goes on from there, here or
elsewhere.

Where nobody waits for anything, trials are answered, a few at a time.
"""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from enum import IntEnum
from typing import Final, TypeVar

from policy.serving import Serving, read_serving
from store.jobs.state import JobKind
from store.results.trials import TrialRepository
from workers.answering.questions import Question, QuestionDesk
from workers.answering.searches import SearchDesk
from workers.answering.searches_at_work import Search
from workers.child.context import WorkerContext
from workers.jobs.group import JobGroup
from workers.jobs.lease import RunningJob
from workers.models.loaded_models import LoadedModels
from workers.models.ready_models import read_ready

Begun = TypeVar("Begun", Question, Search)

_TRIALS_AT_ONCE: Final = 4
# Of each kind on the desk: questions hold the tokens of their videos in memory, exhaustive searches
# their scores.
_MOST_AT_ONCE: Final = 64
# An exhaustive search may lie there for minutes. Those beyond are put off, so that the short ones
# behind them are claimed.
_PUT_OFF: Final = timedelta(seconds=10)
_BETWEEN_SECONDS: Final = 2.0  # before embedding has its next slice


class _Turn(IntEnum):
    """Whose slice it is; at a tie the first one's."""

    QUESTIONS = 0
    SHORT_SEARCHES = 1
    LONG_SEARCHES = 2


_SHARES: Final = {_Turn.QUESTIONS: 8, _Turn.SHORT_SEARCHES: 4, _Turn.LONG_SEARCHES: 1}


class InteractiveDesk:
    """The searches and questions that a process has begun.

    Args:
        context: of the process.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        context.own(LoadedModels)  # a GPU that is gone is said before anything is claimed
        self._group = JobGroup(context.leases, keep=self.keep)
        self._question_desk = QuestionDesk(context, self._group)
        self._search_desk = SearchDesk(context, self._group)
        self._questions: list[Question] = []
        self._short: list[Search] = []
        self._long: list[Search] = []
        self._had = dict.fromkeys(_Turn, 0.0)  # slices, each divided by its share
        self._num_slices = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is on the desk."""
        return not (self._questions or self._short or self._long)

    @property
    def has_short(self) -> bool:
        """Whether anything but exhaustive searches is on the desk."""
        return bool(self._questions or self._short)

    def claim(self) -> int:
        """Put what is due on the desk. Returns how much was claimed."""
        begun = {JobKind.SEARCH: len(self._short), JobKind.QUESTION: len(self._questions)}
        kinds = [kind for kind, number in begun.items() if number < _MOST_AT_ONCE]
        if not kinds:
            return 0
        return self.put(self._context.leases.claim(kinds, limit=self._context.settings.claim_limit))

    def put(self, jobs: Sequence[RunningJob]) -> int:
        """Put claimed jobs on the desk. Returns how many."""
        if any(job.claim.worker_losses for job in jobs):
            self.hand_back()  # it may end this process, and is tried alone
        jobs = self._with_room(jobs)
        if jobs:
            self._group.add(jobs)
            serving = self._group.attempt(self._read_ready, *jobs)
            if serving is not None:
                self._begin(jobs, serving)
        return len(jobs)

    def _read_ready(self) -> Serving:
        models = self._context.own(LoadedModels)
        return read_ready(self._context.sessions, models.ready)

    def _begin(self, jobs: Sequence[RunningJob], serving: Serving) -> None:
        searches = [job for job in jobs if job.claim.kind == JobKind.SEARCH]
        others = [job for job in jobs if job.claim.kind != JobKind.SEARCH]
        self._questions += self._question_desk.begin(others, serving)
        for search in self._search_desk.begin(searches, serving):
            (self._long if search.is_long else self._short).append(search)

    def _with_room(self, jobs: Sequence[RunningJob]) -> list[RunningJob]:
        """Put off the exhaustive searches for which there is no room."""
        room = _MOST_AT_ONCE - len(self._long)
        taken = []
        for job in jobs:
            is_exhaustive = job.claim.input.get("mode") == "exhaustive"
            if is_exhaustive and room <= 0:
                self._context.leases.snooze(job, _PUT_OFF)
                continue
            room -= is_exhaustive
            taken.append(job)
        return taken

    def work(self, *, on_long: bool = True) -> None:
        """Do one slice of what is on the desk.

        Args:
            on_long: whether exhaustive searches may have a turn.
        """
        waiting: dict[_Turn, int] = {
            _Turn.QUESTIONS: len(self._questions),
            _Turn.SHORT_SEARCHES: len(self._short),
            _Turn.LONG_SEARCHES: len(self._long) if on_long else 0,
        }
        present = [turn for turn, count in waiting.items() if count]
        if not present:
            return
        turn = min(present, key=lambda each: (self._had[each], each))
        # Who was not there has no claim to the slices that others had meanwhile.
        for other in _Turn:
            self._had[other] = max(self._had[other], self._had[turn])
        self._had[turn] += 1 / _SHARES[turn]
        self._num_slices += 1
        if turn is _Turn.QUESTIONS:
            self._questions = self._question_desk.score(
                self._in_order(self._questions, lambda question: question.num_pairs)
            )
        elif turn is _Turn.SHORT_SEARCHES:
            self._short = self._search_desk.score(
                self._in_order(self._short, lambda search: search.num_pairs)
            )
        else:
            first, *others = self._long
            self._long = [*others, *self._search_desk.score([first])]

    def keep(self) -> None:
        """Store what exhaustive searches have scored."""
        for search in self._long:
            self._search_desk.keep(search)

    def hand_back(self) -> None:
        """Hand back what is on the desk; it goes on at the next look."""
        self.keep()
        searches = [*self._short, *self._long]
        self._group.release([question.job for question in self._questions])
        self._group.release([search.job for search in searches])
        self._questions, self._short, self._long = [], [], []

    def _in_order(self, begun: Sequence[Begun], num_pairs: Callable[[Begun], int]) -> list[Begun]:
        """Order by age and by size in turn: small ones overtake, large ones are not forgotten."""
        return list(begun) if self._num_slices % 2 else sorted(begun, key=num_pairs)


def serve_interactive(context: WorkerContext) -> int:
    """Claim due searches and questions and answer them, with those that come meanwhile.

    At the end of a look what is left is handed back.

    Returns:
        How many were claimed.
    """
    return _clear(context, context.own(InteractiveDesk).claim())


def serve_between(context: WorkerContext) -> None:
    """Serve people between two slices of other work: briefly, even if more and more come."""
    desk = context.own(InteractiveDesk)
    ends_at = time.monotonic() + _BETWEEN_SECONDS
    desk.claim()
    while desk.has_short and time.monotonic() < ends_at and not context.is_stopping():
        desk.work(on_long=False)
        desk.claim()
    desk.work()


def serve_people_or_trials(context: WorkerContext) -> int:
    """Serve what people wait for, or else some trials. Returns how many were claimed."""
    return serve_interactive(context) or _serve_trials(context)


def warm_up(context: WorkerContext) -> None:
    """Load what serves now, so that the first person to ask does not wait for it."""
    with context.sessions.begin() as session:
        serving = read_serving(session)
    if serving is not None:
        for model in serving.models:
            context.own(LoadedModels).cache.begin_loading(model)  # beside what is asked meanwhile


def _serve_trials(context: WorkerContext) -> int:
    with context.sessions.begin() as session:
        if not TrialRepository(session).may_run():
            return 0
    claimed = context.own(InteractiveDesk).put(
        context.leases.claim([JobKind.TRIAL], limit=_TRIALS_AT_ONCE)
    )
    return _clear(context, claimed)


def _clear(context: WorkerContext, num_claimed: int) -> int:
    desk = context.own(InteractiveDesk)
    ends_at = time.monotonic() + context.settings.look_seconds
    while not desk.is_empty:
        desk.work()
        if time.monotonic() > ends_at or context.is_stopping():
            desk.hand_back()
        else:
            num_claimed += desk.claim()
    return num_claimed
