"""Labels, their revisions and suggestions as people read them."""

from cli.show.console import file_name, format_instant, format_span, format_time
from clipbert_client.client import Json

MOST_GUESSES = 3


def video_name(resource: Json) -> str:
    """Call the video of a label or a suggestion as people do."""
    name = resource.get("filename") or resource.get("video_name") or resource.get("uri")
    return file_name(str(name or resource.get("video") or resource["video_id"]))


def label_text(label: Json) -> str:
    """Return the question or the caption, and the moment if it is about a part of the video."""
    text = str(label.get("question") or label.get("caption") or label.get("text") or "")
    start, end = label.get("start_seconds"), label.get("end_seconds")
    if start is None and end is None:
        return text
    until = "" if end is None else format_instant(float(end))
    return f"{text} [{format_instant(float(start or 0.0))}-{until}]"


def label_answer(label: Json) -> str:
    """Return the answer as a text, also where it is one of several choices."""
    answer, choices = label.get("answer"), label.get("choices") or ()
    right = label.get("right_choice", answer if isinstance(answer, int) else None)
    if choices and isinstance(right, int):
        return str(choices[right])
    return "" if answer is None else str(answer)


def suggestion_row(suggestion: Json) -> tuple[str, ...]:
    """Return what a suggestion is worth, where to look, what to ask, and what a model guesses."""
    guesses = suggestion["answers"][:MOST_GUESSES]
    return (
        f"{suggestion['score']:.2f}",
        video_name(suggestion),
        format_span(suggestion["start_seconds"], suggestion["end_seconds"]),
        str(suggestion["question"]),
        ", ".join(f"{each['answer']} {each['probability']:.0%}" for each in guesses),
        str(suggestion["source"]),
    )


def revision_row(revision: Json) -> tuple[str, ...]:
    """Return what a label said from one change to the next."""
    return (
        str(revision["revision"]),
        str(revision.get("action") or revision.get("change") or ""),
        label_text(revision),
        label_answer(revision),
        str(revision.get("by") or ""),
        format_time(revision.get("created_at") or ""),
    )
