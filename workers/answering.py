"""Answer questions about one video: from the answers of a QA head, or among given choices.

Questions claimed together share their forward passes. Imports torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import torch
from sqlalchemy.orm import Session

from clipbert.inference import ZERO_SHOT_TEMPERATURE, AnswerResult, Predictor, QuestionRequest
from store.errors import VideoNotFound
from store.questions import QuestionRepository
from store.tables import Clip, Model, VideoState
from store.videos import VideoRepository
from workers.batching import batches_by_cost, forward_each
from workers.clip_scores import places_of
from workers.errors import Interrupted, JobError
from workers.lease import Hold, Outcome
from workers.lifecycle import Workplace, leave_if_device_lost
from workers.ready_models import read_ready
from workers.serving import Serving
from workers.uncertainty import Uncertainty, measure_uncertainty

_DEFAULT_TOP_K: Final = 5


@dataclass(frozen=True)
class _Question:
    """One question job at work."""

    hold: Hold
    top_k: int
    clips: Sequence[Clip]
    request: QuestionRequest
    task: str
    model: Model


def answer_questions(workplace: Workplace, holds: Sequence[Hold]) -> None:
    """Do question jobs together, each with its own outcome."""
    if not holds:
        return
    run = _Run(workplace)
    try:
        run.answer(holds)
    except Exception as error:  # noqa: BLE001  what concerns all alike; settle logs it
        for hold in holds:
            run.settle(hold, error)
        leave_if_device_lost(error)


class _Run:
    """Questions that share their forward passes."""

    def __init__(self, workplace: Workplace) -> None:
        self._workplace = workplace
        self._settled: set[UUID] = set()

    def answer(self, holds: Sequence[Hold]) -> None:
        """Answer all questions, those for one model and task in one go."""
        serving = read_ready(self._workplace)
        if serving is None:
            raise JobError(
                "no_active_generation", "nothing is indexed yet: no generation is active"
            )
        groups: dict[tuple[str, UUID], list[_Question]] = {}
        for hold in holds:
            try:
                hold.advance()
                question = self._prepare(hold, serving)
            except Exception as error:  # noqa: BLE001  the edge of a job: settle logs it
                self.settle(hold, error)
            else:
                groups.setdefault((question.task, question.model.id), []).append(question)
        for (task, _), questions in groups.items():
            self._answer_together(task, questions, serving)

    def settle(self, hold: Hold, error: BaseException) -> None:
        """Give a job its outcome, once."""
        if hold.claim.id not in self._settled:
            self._settled.add(hold.claim.id)
            self._workplace.leases.settle(hold, error)

    def _prepare(self, hold: Hold, serving: Serving) -> _Question:
        """Choose the model for a question and load the tokens of its video.

        Raises:
            JobError: `no_qa_model`, `video_not_found` or `video_not_ready`.
        """
        wanted = hold.claim.input
        choices = tuple(wanted.get("choices") or ())
        task, model = _choose_model(serving, has_choices=bool(choices))
        clips = self._read_clips(UUID(str(wanted["video_id"])), serving)
        recall = None
        if task == "multiple_choice" and serving.multiple_choice is None:
            vectors = [list(clip.vector) for clip in clips if clip.vector is not None]
            if len(vectors) < len(clips):
                raise JobError("video_not_ready", "the video has no recall vectors")
            recall = torch.tensor(vectors)  # (K, R)
        tokens = self._workplace.tokens.get(clips[0].tokens_key)  # (K, h, w, D)
        request = QuestionRequest(
            tokens=tokens,
            question=wanted["text"],
            choices=choices,
            recall=recall,
            places=places_of(clips),
        )
        top_k = wanted.get("top_k") or _DEFAULT_TOP_K
        return _Question(hold, top_k, clips, request, task, model)

    def _read_clips(self, video_id: UUID, serving: Serving) -> Sequence[Clip]:
        with self._workplace.sessions.begin() as session:
            videos = VideoRepository(session)
            try:
                video = videos.get(video_id)
            except VideoNotFound as error:
                raise JobError("video_not_found", str(error)) from error
            clips = videos.clips(video_id, serving.generation.id)
        if not clips:
            raise JobError(
                "video_not_ready",
                f"the video is {video.state}: it has no clips in the active generation"
                + (f" ({video.error_message})" if video.state == VideoState.FAILED else ""),
            )
        return clips

    def _answer_together(self, task: str, questions: Sequence[_Question], serving: Serving) -> None:
        predictor = self._workplace.models.get(questions[0].model)
        forward = _forward_of(task, predictor, top_k=max(q.top_k for q in questions))
        limit = self._workplace.match_limit
        for batch in batches_by_cost(questions, _num_pairs, limit):
            going_on = [question for question in batch if self._goes_on(question)]
            outcomes = forward_each(
                going_on,
                forward,
                on_out_of_memory=lambda some: limit.lower_below(sum(map(_num_pairs, some))),
            )
            for question, outcome in zip(going_on, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    self.settle(question.hold, outcome)
                else:
                    self._finish(question, outcome, predictor, serving, len(going_on))

    def _finish(
        self,
        question: _Question,
        answer: AnswerResult,
        predictor: Predictor,
        serving: Serving,
        served_together: int,
    ) -> None:
        uncertainty = _measure(answer, predictor)
        result = _result(question, answer, predictor) | {
            "uncertainty": _uncertainty_json(uncertainty, question.clips),
            "generation_id": str(serving.generation.id),
            "served_together": served_together,
        }

        def write(session: Session) -> Outcome:
            QuestionRepository(session).complete(
                question.hold.claim.id,
                result,
                model_id=question.model.id,
                generation_id=serving.generation.id,
                uncertainty=uncertainty.score,
            )
            return Outcome(result)

        try:
            self._workplace.leases.finish(question.hold, write)
            self._settled.add(question.hold.claim.id)
        except Exception as error:  # noqa: BLE001  the edge of a job: settle logs it
            self.settle(question.hold, error)

    def _goes_on(self, question: _Question) -> bool:
        try:
            question.hold.advance()
        except Interrupted as interruption:
            self.settle(question.hold, interruption)
            return False
        return True


def _choose_model(serving: Serving, *, has_choices: bool) -> tuple[str, Model]:
    if has_choices:
        return "multiple_choice", serving.multiple_choice or serving.recall
    if serving.qa is None:
        raise JobError(
            "no_qa_model",
            "no model with a trained question answering head serves: give choices, or promote one",
        )
    return "qa", serving.qa


def _forward_of(
    task: str, predictor: Predictor, *, top_k: int
) -> Callable[[Sequence[_Question]], Sequence[AnswerResult]]:
    if task == "qa":
        # One pass serves questions that want different numbers of answers; each takes its own.
        return lambda some: predictor.answer([q.request for q in some], top_k=top_k)
    return lambda some: predictor.choose([q.request for q in some])


def _num_pairs(question: _Question) -> float:
    return len(question.clips) * max(1, len(question.request.choices))


def _measure(answer: AnswerResult, predictor: Predictor) -> Uncertainty:
    if answer.zero_shot:
        return measure_uncertainty(answer.clip_logits / ZERO_SHOT_TEMPERATURE, aggregation="max")
    return measure_uncertainty(answer.clip_logits, aggregation=predictor.config.aggregation)


def _uncertainty_json(uncertainty: Uncertainty, clips: Sequence[Clip]) -> dict[str, Any]:
    doubtful = uncertainty.doubtful_clips
    return {
        "score": uncertainty.score,
        "entropy": uncertainty.entropy,
        "disagreement": uncertainty.disagreement,
        "start_seconds": clips[doubtful[0]].start_seconds,
        "end_seconds": clips[doubtful[-1]].end_seconds,
    }


def _result(question: _Question, answer: AnswerResult, predictor: Predictor) -> dict[str, Any]:
    best = answer.answers[0].answer
    names = question.request.choices or predictor.config.answers
    column = list(names).index(best)
    return {
        "answer": best,
        "answers": [
            {"answer": a.answer, "probability": a.probability, "logit": a.logit}
            for a in answer.answers[: question.top_k]
        ],
        "zero_shot": answer.zero_shot,
        "abstained": False,
        "task": question.task,
        "aggregation": "max" if answer.zero_shot else predictor.config.aggregation,
        "evidence": [
            {
                "clip_index": clip.index,
                "start_seconds": clip.start_seconds,
                "end_seconds": clip.end_seconds,
                "instants": list(clip.instants),
                "share": float(share),
                "logit": float(logit),
            }
            for clip, share, logit in zip(
                question.clips, answer.clip_shares, answer.clip_logits[:, column], strict=True
            )
        ],
        "model_id": str(question.model.id),
        "model": question.model.name,
    }
