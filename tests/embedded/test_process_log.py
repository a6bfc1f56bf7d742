import io
import json

from embedded.process_log import ProcessLog, read_line


def test_a_json_line_becomes_the_event_and_its_facts():
    line = json.dumps(
        {
            "event": "job.succeeded",
            "level": "info",
            "timestamp": "2026-01-02T03:04:05Z",
            "clips": 8,
            "seconds": 3.21987,
            "name": "two words",
            "nothing": None,
        }
    )

    shown = read_line(line)

    assert shown.text == 'job.succeeded  clips=8 seconds=3.22 name="two words"'
    assert shown.level == "info"
    assert shown.time.endswith(":04:05")  # in the reader's zone, whose minutes are whole here


def test_a_traceback_in_a_json_line_is_printed_with_its_line_breaks():
    shown = read_line('{"event": "task.crashed", "exception": "Traceback\\n  File"}')

    assert shown.text == "task.crashed\nTraceback\n  File"


def test_text_and_json_of_another_kind_pass_as_they_are():
    for line in ("plain words", "{not json", '{"key": 1}', "[1, 2]"):
        assert read_line(line + "\n").text == line


def test_names_are_aligned_and_uncoloured_where_no_terminal_reads():
    stream = io.StringIO()
    log = ProcessLog(["api", "ingest"], stream=stream)

    log.write("api", "one")
    log.write("ingest", "two\n")
    log.write("ingest", "\n")

    assert [line[9:] for line in stream.getvalue().splitlines()] == [
        "api     one",
        "ingest  two",
    ]


def test_a_terminal_gets_coloured_names_and_red_errors():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()

    ProcessLog(["api"], stream=stream).write("api", '{"event": "boom", "level": "error"}')

    assert "\x1b[36mapi\x1b[0m" in stream.getvalue()
    assert "\x1b[31mboom\x1b[0m" in stream.getvalue()


def test_answered_requests_are_left_out_unless_asked_for_or_refused():
    answered = json.dumps({"event": "request.answered", "status": 200})
    refused = json.dumps({"event": "request.answered", "status": 404})
    quiet, verbose = io.StringIO(), io.StringIO()

    for line in (answered, refused):
        ProcessLog(["api"], stream=quiet).write("api", line)
        ProcessLog(["api"], stream=verbose, with_routine=True).write("api", line)

    assert [line[-10:] for line in quiet.getvalue().splitlines()] == ["status=404"]
    assert len(verbose.getvalue().splitlines()) == 2
