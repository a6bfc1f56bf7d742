"""Serve the searches and questions that are due: people wait for them. Imports torch.

Where nobody waits for anything, trials are answered, a few at a time: who asks meanwhile waits for
one short pass. Embedding lets people in between its passes, and no trials.
"""

from typing import Final

from store.job_state import JobKind
from store.trials import TrialRepository
from workers.answering import answer_questions
from workers.lifecycle import Workplace
from workers.searching import run_searches
from workers.serving import read_serving

_TRIALS_AT_ONCE: Final = 4


def serve_interactive(workplace: Workplace) -> int:
    """Claim due searches and questions and answer them together. Returns how many were claimed."""
    holds = workplace.leases.claim(
        [JobKind.SEARCH, JobKind.QUESTION], limit=workplace.settings.claim_limit
    )
    run_searches(workplace, [hold for hold in holds if hold.claim.kind == JobKind.SEARCH])
    answer_questions(workplace, [hold for hold in holds if hold.claim.kind == JobKind.QUESTION])
    return len(holds)


def serve_people_or_trials(workplace: Workplace) -> int:
    """Serve what people wait for, or else some trials. Returns how many were claimed."""
    return serve_interactive(workplace) or _serve_trials(workplace)


def warm_up(workplace: Workplace) -> None:
    """Load what serves now, so that the first person to ask does not wait for it."""
    with workplace.sessions.begin() as session:
        serving = read_serving(session)
    if serving is not None:
        for model in serving.models:
            workplace.models.begin_loading(model)  # beside what is asked meanwhile


def _serve_trials(workplace: Workplace) -> int:
    with workplace.sessions.begin() as session:
        if not TrialRepository(session).may_run():
            return 0
    holds = workplace.leases.claim([JobKind.TRIAL], limit=_TRIALS_AT_ONCE)
    answer_questions(workplace, holds)
    return len(holds)
