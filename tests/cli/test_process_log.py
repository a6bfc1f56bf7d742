import io
import json

from cli.process_log import ProcessLog, render_line


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

    text, level, time = render_line(line)

    assert text == 'job.succeeded  clips=8 seconds=3.22 name="two words"'
    assert level == "info"
    assert time.endswith(":04:05")  # in the reader's zone, whose minutes are whole here


def test_a_traceback_in_a_json_line_is_printed_with_its_line_breaks():
    text, _, _ = render_line('{"event": "task.crashed", "exception": "Traceback\\n  File"}')

    assert text == "task.crashed\nTraceback\n  File"


def test_text_and_json_of_another_kind_pass_as_they_are():
    for line in ("plain words", "{not json", '{"key": 1}', "[1, 2]"):
        assert render_line(line + "\n")[0] == line


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
