"""`clipbert demo`, which `make demo` runs: index samples/, search them, ask about one, stop."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.api_client import connect
from cli.data_folder import DataOption, find_data_folder
from cli.errors import CliError
from cli.hints import runnable
from embedded.running_up import read_running

if TYPE_CHECKING:
    from clipbert_client.client import ApiClient

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
# A text and the clips that show it. The untrained default model is not expected to find the last:
# old film is one of its limits.
SEARCHES = (
    ("a white parrot", {"cockatoo.mp4"}),
    ("a dog lying on the floor", {"samoyed.mp4"}),
    ("skyscrapers at night", {"city_night.mpg"}),
    ("riding a bicycle", {"bicycle.avi"}),
    ("a plant in a pot", {"potted_plant.mp4"}),
    ("a squirrel", {"squirrel.mp4", "flying_squirrel.mp4"}),
    ("an old racing car", {"grand_prix_1906.ogv"}),
)
NUM_STEPS = 5
SHEET_TEXT = "a white parrot"
QUESTION = (
    "samoyed.mp4",
    "What animal is it?",
    ("a dog lying on the floor", "a parrot", "a squirrel", "a horse"),
)


def demo(
    *,
    data: DataOption = None,
    model: Annotated[Path | None, typer.Option(help="Folder of the default model.")] = None,
    samples: Annotated[Path, typer.Option(help="Folder to index.")] = SAMPLES,
) -> None:
    """Show the whole service on the sample clips: start, index, search, ask, stop."""
    from cli.commands.up import default_ingest_workers, down, start_in_background
    from cli.up_options import UpOptions
    from embedded.lock import is_locked

    started_at = time.monotonic()
    if not samples.is_dir():
        raise CliError(
            f"no sample clips in {samples}", "run the demo from a checkout (`make demo`)"
        )
    folder = find_data_folder(data)
    was_running = is_locked(folder)
    if not was_running:
        _step(1, "Starting PostgreSQL, Redis, the API and the workers, and loading the model")
        start_in_background(
            UpOptions(
                data=folder,
                host="127.0.0.1",
                port=0,
                media_roots=(samples,),
                device="auto",
                ingest_workers=default_ingest_workers(),
                model=None if model is None else model.absolute(),
            ),
            quiet=True,
        )
        running = read_running(folder)
        print(f"   ready at {running.api_url if running else '?'}")
    try:
        _show(folder, samples)
    finally:
        if not was_running:
            _step(5, "Stopping what was started")
            down(data=folder)
    _say(f"That took {time.monotonic() - started_at:.0f} s. To keep it running: make up")
    print("then, in another terminal, with .venv/bin on PATH:")
    print(runnable('  clipbert search "a white parrot" --sheet hits.png'))


def _show(folder: Path, samples: Path) -> None:
    from cli.commands.ask import answering_model, ask_question, print_answers
    from cli.commands.index import collect_files
    from cli.commands.search import run_search
    from cli.sent_batch import start_batch, upload_files
    from cli.show.batch_outcome import follow_batch, print_outcome
    from cli.show.contact_sheet import write_sheet
    from cli.video_names import find_video

    with connect(folder) as api:
        files = collect_files([samples], every_file=False).files
        _step(2, f"Indexing {len(files)} clips: clipbert index samples --wait")
        batch_id, to_upload = start_batch(api, files, name="demo")
        not_sent = upload_files(api, batch_id, files=to_upload)
        counts = follow_batch(api, batch_id, visible=True)
        print_outcome(api, batch_id, counts, not_sent)

        _step(3, f"Searching for {len(SEARCHES)} texts: clipbert search TEXT")
        _print_searches(api)
        found, _ = run_search(api, SHEET_TEXT, limit=5)
        sheet = folder / "demo-sheet.png"
        write_sheet(api, SHEET_TEXT, hits=found["result"]["hits"], target=sheet)
        print(f"contact sheet of {SHEET_TEXT!r}: {sheet}")

        name, question, choices = QUESTION
        offered = " ".join(f'--choice "{choice}"' for choice in choices)
        _step(4, f'Asking: clipbert ask {name} "{question}" {offered}')
        video = find_video(api, name)
        asked_at = time.monotonic()
        answer = ask_question(api, str(video["id"]), text=question, choices=list(choices))
        seconds = time.monotonic() - asked_at
        print_answers(answer, seconds, model=answering_model(api, answer))


def _print_searches(api: "ApiClient") -> None:
    from cli.commands.search import run_search
    from cli.show.console import file_name, format_span, print_table

    rows, num_right = [], 0
    for text, wanted in SEARCHES:
        resource, seconds = run_search(api, text, limit=3)
        hits = resource["result"]["hits"]
        first = hits[0] if hits else None
        name = file_name(str(first["uri"])) if first else ""
        num_right += name in wanted
        rows.append(
            (
                text,
                name,
                format_span(first["start_seconds"], first["end_seconds"]) if first else "",
                f"{first['score']:.3f}" if first else "",
                f"{seconds * 1000:.0f} ms",
                "right" if name in wanted else f"wrong: {', '.join(sorted(wanted))}",
            )
        )
    print_table(["text", "first hit", "moment", "score#", "time#", ""], rows)
    print(f"{num_right} of {len(SEARCHES)} right first")


def _step(number: int, text: str) -> None:
    _say(f"step {number} of {NUM_STEPS}: {text}")


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)
