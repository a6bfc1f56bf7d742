"""What a change of a label changes in its row."""

from typing import Any

from api.schemas.labels import LabelChanges, LabelResource
from api.schemas.player_clock import take_span
from store.errors import IllegalLabel
from store.table_base import Task


def changed_columns(
    changes: LabelChanges, before: LabelResource, *, starts_at_seconds: float
) -> dict[str, Any]:
    """Return what is to change, in the store's names: question and caption are its text.

    Args:
        changes: what was sent.
        before: the label as it is.
        starts_at_seconds: what a player shows at the video's first frame.

    Raises:
        IllegalLabel: it has another task's field, or its span is wrong.
    """
    columns = changes.model_dump(exclude_unset=True)
    wrong = "question" if before.task == Task.RETRIEVAL else "caption"
    if wrong in columns:
        raise IllegalLabel("invalid_label", f"a label for {before.task} has no {wrong}")
    for name in ("question", "caption"):
        if name in columns:
            columns["text"] = columns.pop(name)
    start, end = take_span(
        columns.get("start_seconds", before.start_seconds),
        columns.get("end_seconds", before.end_seconds),
        starts_at_seconds=starts_at_seconds,
    )
    span = {"start_seconds": start, "end_seconds": end}
    return columns | {name: span[name] for name in span if name in columns}
