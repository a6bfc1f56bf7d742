"""Why a finetune or a schedule is refused, as problems: the workers' own checks, from one table."""

from http import HTTPStatus
from typing import Final

from api.errors import ApiError
from policy.finetunes.admission import FinetuneRefused
from policy.fire_times import InvalidSchedule

# Everything else is wrong in the request itself.
_STATUS: Final = {
    "model_not_found": HTTPStatus.NOT_FOUND,
    "dataset_not_found": HTTPStatus.NOT_FOUND,
    # What the library lacks; the same request may be right tomorrow.
    "holdout_empty": HTTPStatus.CONFLICT,
    "no_active_generation": HTTPStatus.CONFLICT,
    "no_labels": HTTPStatus.CONFLICT,
    "one_answer": HTTPStatus.CONFLICT,
    "one_video": HTTPStatus.CONFLICT,
    "choices_differ": HTTPStatus.CONFLICT,
    "tokens_missing": HTTPStatus.CONFLICT,
    "train_empty": HTTPStatus.CONFLICT,
    "video_deleted": HTTPStatus.CONFLICT,
    "video_not_ready": HTTPStatus.CONFLICT,
}
SETTINGS_CODES: Final = (
    "invalid_request",
    "unknown_task",
    "invalid_gate",
    "unknown_recipe_field",
    "invalid_recipe",
)
"""Codes of what is wrong in a request, whatever the library holds."""
DATA_CODES: Final = (
    "model_not_found",
    "dataset_not_found",
    "no_active_generation",
    "no_labels",
    "train_empty",
    "one_answer",
    "one_video",
    "choices_differ",
    "holdout_empty",
    "video_deleted",
    "video_not_ready",
    "tokens_missing",
    "base_model_wrong_task",
    "dataset_wrong_task",
    "visual_side_differs",
)
"""Codes of what the library lacks for a request."""


def finetune_refused(error: FinetuneRefused, *, within: str = "body") -> ApiError:
    """Turn a refusal into a problem; `within` is where in the body the request stands."""
    facts = {name: value for name, value in error.fields.items() if name != "field"}
    field = error.fields.get("field")
    errors = None
    if isinstance(field, str):
        errors = [{"field": f"{within}.{field}", "code": error.code, "message": str(error)}]
    status = _STATUS.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY)
    return ApiError(status, error.code, _sentence(str(error)), errors=errors, facts=facts)


def schedule_refused(error: InvalidSchedule) -> ApiError:
    """Turn a schedule that cannot fire into a problem."""
    return ApiError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        error.code,
        _sentence(str(error)),
        errors=[{"field": f"body.{error.field}", "code": error.code, "message": str(error)}],
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
