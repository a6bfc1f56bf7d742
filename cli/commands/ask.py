"""`clipbert ask`: a question about one video, with the moments that speak for the answer."""

import time
from typing import Annotated

import typer

from cli.api_client import connect
from cli.data_folder import DataOption
from cli.errors import CliError
from cli.model_names import model_name
from cli.show.console import JsonOption, file_name, format_span, print_json, print_table
from cli.video_names import find_video
from clipbert_client.client import ApiClient, Json
from clipbert_client.errors import ApiProblem

MOST_EVIDENCE = 5


def ask(
    video: Annotated[str, typer.Argument(help="Its id, URI, path, name, or a unique part of one.")],
    question: Annotated[str, typer.Argument(help="The question.")],
    *,
    choice: Annotated[
        list[str] | None, typer.Option(help="A possible answer: two or more, or none.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, max=100, help="Answers to show.")] = 5,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the answer.")] = 60.0,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Ask a question about a video: choose between answers, or answer freely."""
    if choice is not None and len(choice) == 1:
        raise CliError("give two or more --choice, or none")
    with connect(data) as api:
        target = find_video(api, video)
        started_at = time.monotonic()
        resource = ask_question(
            api,
            str(target["id"]),
            text=question,
            choices=choice,
            top_k=top_k,
            timeout_seconds=timeout,
        )
        seconds = time.monotonic() - started_at
        if as_json:
            print_json(resource)
            return
        print(f"{file_name(str(target['uri']))}: {question}")
        print_answers(resource, seconds, model=answering_model(api, resource))


def ask_question(
    api: ApiClient,
    video_id: str,
    *,
    text: str,
    choices: list[str] | None,
    top_k: int = 5,
    timeout_seconds: float = 60.0,
) -> Json:
    """Ask and wait for the answer; returns the question resource."""
    body: Json = {"video_id": video_id, "text": text, "top_k": top_k}
    if choices:
        body["choices"] = choices
    return api.ask("/v1/questions", body, timeout_seconds=timeout_seconds)


def answering_model(api: ApiClient, resource: Json) -> str:
    """Return the model that gave an answer, with its version while it is registered."""
    result = resource["result"]
    try:
        return model_name(api.get(f"/v1/models/{result['model_id']}"))
    except ApiProblem:
        return str(result["model"])


def print_answers(resource: Json, seconds: float, *, model: str) -> None:
    """Print the ranked answers, the evidence, what was done in which time, and by which model."""
    result = resource["result"]
    print_table(
        ["rank#", "answer", "probability#"],
        [
            (str(rank), str(answer["answer"]), f"{answer['probability']:.1%}")
            for rank, answer in enumerate(result["answers"], start=1)
        ],
    )
    evidence = sorted(result["evidence"], key=lambda clip: -clip["share"])[:MOST_EVIDENCE]
    if evidence:
        moments = ", ".join(
            f"{format_span(clip['start_seconds'], clip['end_seconds'])} ({clip['share']:.0%})"
            for clip in evidence
        )
        print(f"seen in {moments}")
    how = "zero-shot (no head was trained for it)" if result["zero_shot"] else "by a trained head"
    print(f"{seconds * 1000:.0f} ms, {how}, {model}")
