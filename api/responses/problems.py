"""The codes of problems that routes answer with, as the OpenAPI document lists them."""

from http import HTTPStatus
from typing import Any, Final

_CODES: Final[dict[str, tuple[int, str]]] = {
    "malformed_json": (400, "the body is not JSON"),
    "malformed_multipart": (400, "the body is not a multipart form"),
    "unauthorized": (401, "there is no valid API key"),
    "outside_media_roots": (403, "a path is not under any media root"),
    "batch_not_found": (404, "there is no such batch"),
    "curves_not_ready": (404, "the finetune has drawn no curves yet"),
    "dataset_not_found": (404, "there is no such data set"),
    "finetune_not_found": (404, "there is no such finetune"),
    "generation_not_found": (404, "there is no such generation"),
    "job_not_found": (
        404,
        "there is no such job; jobs of videos are deleted some time after their end",
    ),
    "label_not_found": (404, "there is no such label"),
    "media_gone": (404, "the file is no longer there"),
    "model_not_found": (404, "there is no such model"),
    "question_not_found": (404, "there is no such question"),
    "schedule_not_found": (404, "there is no such schedule"),
    "search_not_found": (404, "there is no such search"),
    "thumbnail_not_found": (404, "the video has no such thumbnail"),
    "video_not_found": (404, "there is no such video"),
    "vocabulary_not_found": (404, "there is no such vocabulary"),
    "cannot_promote": (409, "the model cannot serve this task; the message says why"),
    "holdout_empty": (409, "no label is in the holdout, by which a model is judged"),
    "model_needed": (409, "the model serves, or something else needs it; `detail` says what"),
    "illegal_rollback": (409, "the model serves nothing that could be rolled back"),
    "illegal_state": (409, "the job is in a state that does not allow this"),
    "media_changed": (409, "the file has other content than was indexed"),
    "no_active_generation": (409, "no model indexes videos yet"),
    "no_labels": (409, "there is no label for this task, or none that fits the filter"),
    "no_qa_model": (409, "no model that answers open-ended questions is serving"),
    "one_answer": (409, "all labels to train from have the same answer"),
    "one_video": (409, "all captions to train from are of one video"),
    "choices_differ": (409, "questions to train from have different numbers of choices"),
    "schedule_exists": (409, "another schedule has this name"),
    "tokens_missing": (409, "videos of these labels are not indexed yet"),
    "train_empty": (409, "all labels are in the holdout, none is left to train from"),
    "video_deleted": (409, "videos of these labels were deleted"),
    "video_not_ready": (409, "videos are not indexed yet, or never will be"),
    "precondition_failed": (412, "it has changed since the ETag of If-Match"),
    "payload_too_large": (413, "the body is too large"),
    "too_many_items": (413, "the batch has too many items"),
    "unsupported_media_type": (415, "the content type is not one of those listed"),
    "range_not_satisfiable": (416, "the range begins after the end of the file"),
    "ambiguous_video": (422, "the name fits several videos; use an id"),
    "base_model_wrong_task": (422, "the base model was trained for another task"),
    "dataset_wrong_task": (422, "the data set is for another task"),
    "duplicate": (422, "another label says exactly this"),
    "idempotency_conflict": (422, "the Idempotency-Key was used for another request"),
    "invalid_gate": (422, "a field of the gate is unknown or wrong"),
    "invalid_label": (422, "a label cannot say this, or lacks something"),
    "invalid_page_token": (422, "the page token is not one of ours"),
    "invalid_recipe": (422, "a field of the recipe is wrong"),
    "invalid_request": (422, "a field or parameter is missing or wrong, see errors"),
    "invalid_cron": (422, "the cron expression cannot be read, or never comes true"),
    "invalid_time_zone": (422, "there is no such time zone"),
    "invalid_span": (422, "the moment ends before it starts"),
    "invalid_split": (422, "there is no such split"),
    "labels_refused": (422, "lines are refused, see errors, and nothing was kept"),
    "media_not_found": (422, "there is no file at this path"),
    "split_conflict": (422, "the video's labels are on the other side of the split"),
    "unknown_recipe_field": (422, "the recipe has no such field"),
    "unknown_video": (422, "no video has this name"),
    "unknown_task": (422, "finetunes have no such task"),
    "visual_side_differs": (422, "the base model cannot read the cached tokens"),
    "internal_error": (500, "an error in the service; its log has the details"),
    "too_many_streams": (503, "too many event streams are open"),
    "media_being_checked": (503, "the file may have changed and is being checked"),
    "not_ready": (503, "the service cannot take requests yet"),
    "store_unavailable": (503, "the database does not answer"),
    "storage_full": (
        507,
        "a disk of the service is full; nothing new is accepted until there is room",
    ),
}
_OF_EVERY_ROUTE: Final = (
    "unauthorized",
    "internal_error",
    "store_unavailable",
    "storage_full",
)

Responses = dict[int | str, dict[str, Any]]


def refusals(*codes: str) -> Responses:
    """Describe the problems of a route, for its `responses`; those of every route are added."""
    if "malformed_json" in codes:  # the route has a body, and checks its type
        codes = tuple(dict.fromkeys((*codes, "unsupported_media_type")))
    return open_refusals(*codes, *_OF_EVERY_ROUTE)


def open_refusals(*codes: str) -> Responses:
    """As `refusals`, for a route that needs no key and no database."""
    described: Responses = {}
    for code in sorted(codes, key=lambda code: _CODES[code]):
        status, sentence = _CODES[code]
        entry = described.setdefault(
            status, {"description": "", "content": {"application/problem+json": {}}}
        )
        entry["description"] += f"{'; ' if entry['description'] else ''}`{code}`: {sentence}"
        examples = entry["content"]["application/problem+json"].setdefault("examples", {})
        examples[code] = {
            "value": {
                "type": f"urn:clipbert:problem:{code}",
                "title": HTTPStatus(status).phrase,
                "status": status,
                "detail": f"{sentence[0].upper()}{sentence[1:]}.",
                "code": code,
            }
        }
    return described
