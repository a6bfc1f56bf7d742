"""Put trial questions to videos that nobody labelled, to find where a label is worth most.

Rung by beat. A trial is what active learning needs to know of a video before a person looks at it:
how unsure the model is. The questions are those that people label and ask most, each tried equally
often, on the videos that were asked least. Answers of people's questions by a model that
no longer serve are tried again. Trials run where nobody waits, and are bounded in number.

Imports no torch.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import structlog

from policy.serving import read_serving
from store.jobs.repository import JobRepository
from store.jobs.state import JobKind
from store.results.trials import AskedText, TrialRepository, TrialSource, UnlabelledVideo
from workers.child.context import WorkerContext

log = structlog.get_logger(__name__)

_MOST_TEXTS: Final = 50


def put_trials(context: WorkerContext) -> int:
    """Remove the trials that are out of date and put new ones; returns how many are new.

    Does nothing beside another process that does the same, and puts none while videos wait to be
    embedded, which the same device does.
    """
    settings = context.settings
    with context.sessions.begin() as session:
        trials = TrialRepository(session)
        if not trials.lock():
            return 0
        serving = read_serving(session)
        model = None if serving is None else serving.qa
        removed = trials.remove_outdated(None if model is None else model.id)
        if removed:
            log.info("trials.removed", count=removed)
        if model is None:
            return 0
        counts = trials.counts(model.id)
        room = min(
            settings.trials_waiting - counts.num_waiting, settings.trials_per_model - counts.num_all
        )
        if room <= 0 or JobRepository(session).due_up_to(1).get(JobKind.EMBED):
            return 0
        count = _put(trials, model.id, room)
    if count:
        log.info("trials.put", count=count)
        context.doorbell.ring(JobKind.TRIAL)
    return count


def pair_trials(
    videos: Sequence[UnlabelledVideo], texts: Sequence[AskedText]
) -> list[tuple[UUID, str]]:
    """Choose a question for each video: of those it was not asked, the one with the fewest trials.

    Args:
        videos: one pair at most each.
        texts: the most frequent first, which decides between equals.

    Returns:
        Pairs of a video's id and a question.
    """
    num_trials = {text.key: text.num_trials for text in texts}
    pairs = []
    for video in videos:
        new = [text for text in texts if text.key not in video.asked_keys]
        if new:
            chosen = min(new, key=lambda text: num_trials[text.key])
            num_trials[chosen.key] += 1
            pairs.append((video.id, chosen.text))
    return pairs


def _put(trials: TrialRepository, model_id: UUID, room: int) -> int:
    # Half of the room at most, so that a promotion after years of questions leaves some for videos
    # that nobody knows.
    outdated = trials.outdated_questions(model_id, limit=(room + 1) // 2)
    for question in outdated:
        if question.video_id is not None:
            trials.create(
                TrialSource.ASKED,
                video_id=question.video_id,
                text=question.text,
                model_id=model_id,
            )
    texts = trials.frequent_texts(model_id, limit=_MOST_TEXTS)
    if not texts:
        return len(outdated)
    keys = [text.key for text in texts]
    videos = trials.unlabelled_videos(model_id, keys=keys, limit=room - len(outdated))
    pairs = pair_trials(videos, texts)
    for video_id, text in pairs:
        trials.create(TrialSource.UNLABELLED, video_id=video_id, text=text, model_id=model_id)
    return len(outdated) + len(pairs)
