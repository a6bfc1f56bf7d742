"""Answer questions about one video: from the answers of a QA head, or among given choices.

Questions share their forward passes, and a long one, of many clips and choices, takes several
slices that workers.answering.interactive takes in turn with those of others. Imports torch.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import torch
from sqlalchemy.orm import Session

from clipbert.inference.clipbert import ClipBert
from clipbert.inference.requests import QuestionRequest
from clipbert.inference.results import ZERO_SHOT_TEMPERATURE, AnswerResult, sum_up_answers
from policy.serving import Serving
from store.errors import VideoNotFound
from store.models.tables import Model
from store.results.questions import QuestionRepository
from store.videos.repository import VideoRepository
from store.videos.tables import Clip, VideoState
from workers.answering.clip_scores import places_of
from workers.answering.uncertainty import Uncertainty, measure_uncertainty
from workers.child.context import WorkerContext
from workers.errors import JobError
from workers.jobs.batching import batches_by_cost, forward_each
from workers.jobs.group import JobGroup
from workers.jobs.lease import Outcome, RunningJob
from workers.models.loaded_models import LoadedModels
from workers.models.pair_slices import PairRow, score_slice

_DEFAULT_TOP_K: Final = 5


@dataclass
class Question:
    """One question job at work."""

    job: RunningJob
    serving: Serving
    top_k: int
    clips: Sequence[Clip]
    request: QuestionRequest
    task: str
    model: Model
    rows: list[PairRow]  # one, or one for each choice; none if recall vectors answer
    served_together: int = 1

    @property
    def num_pairs(self) -> int:
        """How many pairs of a text and a clip wait to be scored."""
        return sum(row.num_left for row in self.rows)


class QuestionDesk:
    """Works on the questions of one process.

    Args:
        context: of the process.
        group: of the jobs that people wait for.
    """

    def __init__(self, context: WorkerContext, group: JobGroup) -> None:
        self._context = context
        self._group = group

    @property
    def _models(self) -> LoadedModels:
        return self._context.own(LoadedModels)

    def begin(self, jobs: Sequence[RunningJob], serving: Serving) -> list[Question]:
        """Load what questions are about.

        Returns:
            Those that are to be answered, slice by slice.
        """
        questions = []
        for job in jobs:
            if self._group.advance(job):
                question = self._group.attempt(partial(self._prepare, job, serving), job)
                if question is not None:
                    questions.append(question)
        together = Counter(_model_of(question) for question in questions)
        for question in questions:
            question.served_together = together[_model_of(question)]
        return questions

    def score(self, questions: Sequence[Question]) -> list[Question]:
        """Score a slice of some questions' pairs, those of the first question first.

        Returns:
            The questions that go on.
        """
        together = [each for each in questions if _model_of(each) == _model_of(questions[0])]
        model = self._group.attempt(
            partial(self._models.cache.get, questions[0].model),
            *(question.job for question in together),
        )
        if model is not None:
            if questions[0].rows:
                score_slice(
                    (row for question in together for row in question.rows if row.num_left),
                    group=self._group,
                    model=model,
                    head=questions[0].task,
                    limit=self._models.match_limit,
                )
            else:
                self._choose_by_recall(together, model)
            for question in together:
                if question.rows and all(row.is_over for row in question.rows):
                    self._group.attempt(partial(self._finish, question, model), question.job)
        return [question for question in questions if self._group.is_open(question.job)]

    def _prepare(self, job: RunningJob, serving: Serving) -> Question:
        """Choose the model for a question and load the tokens of its video.

        Raises:
            JobError: `no_qa_model`, `video_not_found` or `video_not_ready`.
        """
        wanted = job.claim.input
        choices = tuple(wanted.get("choices") or ())
        task, model = _choose_model(serving, has_choices=bool(choices))
        clips = self._read_clips(UUID(str(wanted["video_id"])), serving)
        recall = None
        if task == "multiple_choice" and serving.multiple_choice is None:
            vectors = [list(clip.vector) for clip in clips if clip.vector is not None]
            if len(vectors) < len(clips):
                raise JobError("video_not_ready", "the video has no recall vectors")
            recall = torch.tensor(vectors)  # (K, R)
        request = QuestionRequest(
            tokens=self._models.tokens.get(clips[0].tokens_key),  # (K, h, w, D)
            question=wanted["text"],
            choices=choices,
            recall=recall,
            places=places_of(clips),
        )
        top_k = wanted.get("top_k") or _DEFAULT_TOP_K
        rows = [] if recall is not None else _rows_of(job, request)
        return Question(job, serving, top_k, clips, request, task, model, rows)

    def _read_clips(self, video_id: UUID, serving: Serving) -> Sequence[Clip]:
        with self._context.sessions.begin() as session:
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

    def _choose_by_recall(self, questions: Sequence[Question], model: ClipBert) -> None:
        """Answer, without a trained head, as many questions as fit into a slice."""
        limit = self._models.match_limit
        batch = next(
            batches_by_cost(questions, lambda each: len(each.request.choices), limit=limit)
        )
        going_on = [question for question in batch if self._group.advance(question.job)]
        outcomes = self._group.attempt(
            lambda: forward_each(
                going_on, lambda some: model.choose_all([each.request for each in some])
            ),
            *(question.job for question in going_on),
        )
        for question, outcome in zip(going_on, outcomes or (), strict=bool(outcomes)):
            if isinstance(outcome, Exception):
                self._group.settle(question.job, outcome)
            else:
                self._write(question, outcome, model)

    def _finish(self, question: Question, model: ClipBert) -> None:
        config, logits = model.config, [row.logits for row in question.rows]
        if question.task == "qa":
            answer = sum_up_answers(
                logits[0], config.answers, aggregation=config.aggregation, top_k=question.top_k
            )
        else:
            choices = question.request.choices
            answer = sum_up_answers(
                torch.cat(logits, dim=1),  # (K, A)
                choices,
                aggregation=config.aggregation,
                top_k=len(choices),
            )
        self._write(question, answer, model)

    def _write(self, question: Question, answer: AnswerResult, model: ClipBert) -> None:
        uncertainty = _measure(answer, model)
        result = _result(question, answer, model) | {
            "uncertainty": _uncertainty_json(uncertainty, question.clips),
            "generation_id": str(question.serving.generation.id),
            "served_together": question.served_together,
        }

        def write(session: Session) -> Outcome:
            QuestionRepository(session).complete(
                question.job.claim.id,
                result,
                model_id=question.model.id,
                generation_id=question.serving.generation.id,
                uncertainty=uncertainty.score,
            )
            return Outcome(result)

        self._group.finish(question.job, write)


def _model_of(question: Question) -> tuple[str, UUID, bool]:
    return question.task, question.model.id, bool(question.rows)


def _rows_of(job: RunningJob, request: QuestionRequest) -> list[PairRow]:
    texts = [f"{request.question} {choice}" for choice in request.choices] or [request.question]
    return [
        PairRow(job, text, places=request.places or (), load=lambda: request.tokens)
        for text in texts
    ]


def _choose_model(serving: Serving, *, has_choices: bool) -> tuple[str, Model]:
    if has_choices:
        return "multiple_choice", serving.multiple_choice or serving.recall
    if serving.qa is None:
        raise JobError(
            "no_qa_model",
            "no model with a trained question answering head serves: give choices, or promote one",
        )
    return "qa", serving.qa


def _measure(answer: AnswerResult, model: ClipBert) -> Uncertainty:
    if answer.zero_shot:
        return measure_uncertainty(answer.clip_logits / ZERO_SHOT_TEMPERATURE, aggregation="max")
    return measure_uncertainty(answer.clip_logits, aggregation=model.config.aggregation)


def _uncertainty_json(uncertainty: Uncertainty, clips: Sequence[Clip]) -> dict[str, Any]:
    doubtful = uncertainty.doubtful_clips
    return {
        "score": uncertainty.score,
        "entropy": uncertainty.entropy,
        "disagreement": uncertainty.disagreement,
        "start_seconds": clips[doubtful[0]].start_seconds,
        "end_seconds": clips[doubtful[-1]].end_seconds,
    }


def _result(question: Question, answer: AnswerResult, model: ClipBert) -> dict[str, Any]:
    best = answer.answers[0].answer
    names = question.request.choices or model.config.answers
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
        "aggregation": "max" if answer.zero_shot else model.config.aggregation,
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
