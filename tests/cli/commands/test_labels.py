import gzip
import io
import json
import os
import subprocess
import sys

import pytest

LABEL = "0198c0df-6666-7aaa-8bbb-1234567890ab"
LINES = b'{"video": "a", "question": "what?", "answer": "it"}\n' * 3


def outcome(*, lines=3, inserted=3, unchanged=0, errors=()):
    return {
        "num_lines": lines,
        "num_inserted": inserted,
        "num_unchanged": unchanged,
        "num_refused": len(errors),
        "errors": list(errors),
    }


def refused(line):
    return {"line": line, "code": "video_not_found", "message": f"no video is named v{line}"}


@pytest.fixture
def accepting(api):
    api.answer("POST", "/v1/labels", outcome())
    return api


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.jsonl.gz", "packed"])
def test_a_file_is_sent_as_lines_packed_or_not(accepting, clipbert, tmp_path, name):
    file = tmp_path / name
    file.write_bytes(LINES if name == "labels.jsonl" else gzip.compress(LINES))

    said = clipbert("label", "import", file, "--kind", "labels", "--source", "review")

    (sent,) = accepting.sent("POST", "/v1/labels")
    assert sent.body == LINES
    assert sent.query == {"kind": "labels", "source": "review", "on_error": "fail"}
    assert said.out == "labels: 3 imported\n"


def test_a_large_file_is_streamed_whole(accepting, clipbert, tmp_path):
    file = tmp_path / "large.jsonl.gz"
    lines = LINES * 20_000  # 3 MB, many pieces
    file.write_bytes(gzip.compress(lines))

    clipbert("label", "import", file)

    assert accepting.requests[0].body == lines


def test_stdin_is_sent(accepting, clipbert, monkeypatch):
    packed = io.BufferedReader(io.BytesIO(gzip.compress(LINES)))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(packed))

    clipbert("label", "import", "-")

    assert accepting.requests[0].body == LINES


def test_what_is_known_already_is_counted_apart(api, clipbert, tmp_path):
    api.answer("POST", "/v1/labels", outcome(inserted=1, unchanged=2))
    (tmp_path / "l.jsonl").write_bytes(LINES)

    said = clipbert("label", "import", tmp_path / "l.jsonl")

    assert said.out == "labels: 1 imported, 2 known already\n"


def test_a_refused_line_keeps_all_out_and_says_its_number(api, clipbert, tmp_path):
    api.refuse(
        *("POST", "/v1/labels", 422, "labels_refused"),
        errors=[refused(2)],
        num_lines=3,
        num_refused=1,
    )
    (tmp_path / "l.jsonl").write_bytes(LINES)

    said = clipbert("label", "import", tmp_path / "l.jsonl", code=1)

    header, row = said.out.splitlines()
    assert header.split() == ["line", "code", "why"]
    assert row.split(maxsplit=2) == ["2", "video_not_found", "no video is named v2"]
    assert said.err == (
        "clipbert: nothing imported: 1 line refused\n  --on-error skip imports the others\n"
    )


def test_with_skip_the_others_are_imported_and_that_is_no_failure(api, clipbert, tmp_path):
    errors = [refused(line) for line in range(1, 61)]
    api.answer("POST", "/v1/labels", outcome(lines=100, inserted=40, errors=errors))
    (tmp_path / "l.jsonl").write_bytes(LINES)

    said = clipbert("label", "import", tmp_path / "l.jsonl", "--on-error", "skip")

    assert said.out.splitlines()[0] == "labels: 40 imported, 60 lines refused"
    assert said.out.splitlines()[-1] == "... and 40 more (--json lists the first 60)"
    assert api.requests[0].query["on_error"] == "skip"


def test_with_skip_it_is_a_failure_if_no_line_is_left(api, clipbert, tmp_path):
    api.answer("POST", "/v1/labels", outcome(lines=1, inserted=0, errors=[refused(1)]))
    (tmp_path / "l.jsonl").write_bytes(LINES)

    for more in ([], ["--json"]):
        clipbert("label", "import", tmp_path / "l.jsonl", "--on-error", "skip", *more, code=1)


def test_a_refusal_of_the_whole_is_an_error(api, clipbert, tmp_path):
    api.refuse("POST", "/v1/labels", 413, "payload_too_large")
    (tmp_path / "l.jsonl").write_bytes(LINES)

    said = clipbert("label", "import", tmp_path / "l.jsonl", code=1)

    assert said.err == "clipbert: no: payload_too_large (payload_too_large)\n"


def test_a_video_is_not_taken_for_labels(api, clipbert, tmp_path):
    (tmp_path / "film.jsonl").write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0" + bytes(2000))

    said = clipbert("label", "import", tmp_path / "film.jsonl", code=1)

    assert "film.jsonl is not a text file: labels are read from lines of JSON" in said.err
    assert api.requests == []


def test_a_file_that_is_cut_short_is_not_imported_as_if_it_were_whole(
    accepting, clipbert, tmp_path
):
    file = tmp_path / "cut.gz"
    file.write_bytes(gzip.compress(os.urandom(200_000).hex().encode())[:-5000])

    said = clipbert("label", "import", file, code=1)

    assert "cut.gz is damaged gzip" in said.err
    assert "nothing was imported" in said.err


def test_a_file_in_utf_16_is_named_as_that(accepting, clipbert, tmp_path):
    file = tmp_path / "l.jsonl"
    file.write_bytes(LINES.decode().encode("utf-16"))

    said = clipbert("label", "import", file, code=1)

    assert "is UTF-16" in said.err
    assert accepting.requests == []


@pytest.mark.parametrize("name", ["train_qa.json", "train_qa.json.gz"])
def test_a_file_as_its_data_set_ships_it_is_sent_as_lines(accepting, clipbert, tmp_path, name):
    shipped = [
        {"answer": "couch", "id": 1, "question": "what is it?", "video_id": 6513, "category_id": 1},
        {"answer": "café", "id": 2, "question": "where is it?", "video_id": 6514},
    ]
    text = "\N{ZERO WIDTH NO-BREAK SPACE}" + json.dumps(shipped, indent=1, ensure_ascii=False)
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)

    clipbert("label", "import", tmp_path / name)

    (sent,) = accepting.sent("POST", "/v1/labels")
    assert [json.loads(line) for line in sent.body.decode().splitlines()] == shipped


def test_half_a_letter_in_a_shipped_file_is_left_to_the_service_to_name(
    accepting, clipbert, tmp_path
):
    path = tmp_path / "train_qa.json"
    path.write_text(r'[{"answer": "\ud800", "question": "b", "video_id": 1}]')

    clipbert("label", "import", path)

    (sent,) = accepting.sent("POST", "/v1/labels")
    assert sent.body == rb'{"answer": "\ud800", "question": "b", "video_id": 1}' + b"\n"


def test_a_shipped_file_that_breaks_off_is_not_imported(accepting, clipbert, tmp_path):
    path = tmp_path / "train_qa.json"
    path.write_text('[{"answer": "a", "question": "b", "video_id": 1},\n{"answer"')

    said = clipbert("label", "import", path, code=1)

    assert "its array breaks off or is damaged" in said.err
    assert "nothing was imported" in said.err


def test_a_file_without_a_line_is_an_error(api, clipbert, tmp_path):
    api.answer("POST", "/v1/labels", outcome(lines=0, inserted=0))
    (tmp_path / "l.jsonl").write_bytes(b"\n")

    said = clipbert("label", "import", tmp_path / "l.jsonl", code=1)

    assert "l.jsonl has no line" in said.err


@pytest.mark.parametrize(
    ("name", "why"), [("none.jsonl", "No such file or directory"), ("", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_one_line(accepting, clipbert, tmp_path, name, why):
    said = clipbert("label", "import", tmp_path / name, code=1)

    assert said.err.endswith(f"cannot be read: {why}\n")
    assert accepting.requests == []


def test_labels_are_exported_to_stdout_and_into_files(api, clipbert, tmp_path):
    lines = '{"question": "a\u2028b?"}\n{"question": "c"}\n'.encode()
    api.answer("GET", "/v1/labels:export", lines)
    plain, packed = tmp_path / "out.jsonl", tmp_path / "out.jsonl.gz"
    environment = {**os.environ, "CLIPBERT_API_URL": api.url, "CLIPBERT_API_KEY": "cb_key"}

    printed = subprocess.run(
        [sys.executable, "-m", "cli.main", "label", "export"],
        env=environment,
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    ).stdout
    said = clipbert("label", "export", plain, "--task", "qa", "--split", "holdout")
    clipbert("label", "export", packed)

    assert printed == plain.read_bytes() == gzip.decompress(packed.read_bytes()) == lines
    assert said.out == f"wrote 2 labels to {plain}\n"
    assert api.requests[1].query == {"video": "sha256", "task": "qa", "split": "holdout"}


@pytest.mark.parametrize(
    ("options", "name"),
    [([], "sha256"), (["--video-as", "filename"], "filename"), (["--video-as", "id"], "id")],
)
def test_an_export_names_videos_as_any_service_does(api, clipbert, options, name):
    """An id means nothing where the same files were indexed anew."""
    api.answer("GET", "/v1/labels:export", b"")

    clipbert("label", "export", *options)

    assert [each.query["video"] for each in api.sent("GET", "/v1/labels:export")] == [name]


def test_an_export_that_fails_leaves_what_was_there(api, clipbert, tmp_path):
    api.refuse("GET", "/v1/labels:export", 422, "invalid_request")
    target = tmp_path / "out.jsonl"
    target.write_bytes(LINES)

    clipbert("label", "export", target, code=1)

    assert target.read_bytes() == LINES
    assert os.listdir(tmp_path) == ["out.jsonl"]  # noqa: PTH208


def test_several_labels_are_deleted(api, clipbert):
    other = LABEL.replace("6666", "7777")
    for label in (LABEL, other):
        api.answer("DELETE", f"/v1/labels/{label}", b"", 204)

    said = clipbert("label", "delete", LABEL, other)

    assert said.out == f"deleted label {LABEL}\ndeleted label {other}\n"


def suggestion(**changes):
    return {
        "source": "asked",
        "uri": "file:///v/one.mp4",
        "question": "what is it?",
        "score": 0.876,
        "start_seconds": 2.0,
        "end_seconds": 4.5,
        "answers": [{"answer": "dog", "probability": 0.4}, {"answer": "cat", "probability": 0.35}],
        "label": {"video": "v", "question": "what is it?", "answer": None},
        **changes,
    }


def test_suggestions_say_where_to_look_and_what_the_model_guesses(api, clipbert):
    api.answer("GET", "/v1/labels/suggestions", {"items": [suggestion()]})

    _header, row = clipbert("label", "suggest", "--from", "asked").out.splitlines()

    assert " ".join(row.split()) == (
        "0.88 one.mp4 0:02.0-0:04.5 what is it? dog 40%, cat 35% asked"
    )
    assert api.requests[0].query == {"task": "qa", "source": "asked", "limit": "20"}


def test_suggestions_can_be_printed_as_lines_to_fill_in(api, clipbert):
    api.answer("GET", "/v1/labels/suggestions", {"items": [suggestion()]})

    said = clipbert("label", "suggest", "--lines")

    assert json.loads(said.out) == suggestion()["label"]


def test_no_suggestion_is_said(api, clipbert):
    api.answer("GET", "/v1/labels/suggestions", {"items": []})

    assert "nothing to suggest: " in clipbert("label", "suggest").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["suggest", "--from", "me"], "--from is one of asked, unlabelled, not me"),
        (["list", "--task", "me"], "--task is one of qa, multiple_choice, retrieval, not me"),
        (["export", "/nowhere/at/all.jsonl"], "/nowhere/at/all.jsonl cannot be written: No such"),
    ],
)
def test_what_cannot_be_is_said_in_the_words_of_the_command_line(api, clipbert, arguments, said):
    assert said in clipbert("label", *arguments, code=1).err
    assert api.requests == []
