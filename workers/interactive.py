"""Serve the searches and questions that are due: people wait for them. Imports torch."""

from store.job_state import JobKind
from workers.answering import answer_questions
from workers.lifecycle import Workplace
from workers.searching import run_searches
from workers.serving import read_serving


def serve_interactive(workplace: Workplace) -> int:
    """Claim due searches and questions and answer them together. Returns how many were claimed."""
    holds = workplace.leases.claim(
        [JobKind.SEARCH, JobKind.QUESTION], limit=workplace.settings.claim_limit
    )
    run_searches(workplace, [hold for hold in holds if hold.claim.kind == JobKind.SEARCH])
    answer_questions(workplace, [hold for hold in holds if hold.claim.kind == JobKind.QUESTION])
    return len(holds)


def warm_up(workplace: Workplace) -> None:
    """Load what serves now, so that the first person to ask does not wait for it."""
    with workplace.sessions.begin() as session:
        serving = read_serving(session)
    if serving is not None:
        for model in serving.models:
            workplace.models.get(model)
