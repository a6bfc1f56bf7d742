import io
import sys
import threading

import structlog

from cli.show.console import print_table

ID = "0198c0df-5555-7aaa-8bbb-1234567890ab"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_narrow_terminal_cuts_no_id_and_loses_no_column(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    names = ["id", "video", "state", "length#", "size#", "codec"]

    print_table(names, [(ID, "a holiday by the sea.mp4", "ready", "1:02.0", "1920x1080", "h264")])

    shown = terminal.getvalue().split()
    assert {ID, "ready", "1:02.0", "1920x1080", "h264"} <= set(shown)


def test_what_a_thread_logs_meanwhile_is_not_in_what_a_command_prints(api, clipbert):
    def page(_):
        structlog.get_logger("somebody").warning("job.claimed")
        return 200, {"items": [], "next_page_token": None}

    api.answer("GET", "/v1/jobs", page)  # answered by a thread of its own
    assert threading.active_count() > 1

    said = clipbert("jobs", "list")

    assert said.out.split() == ["id", "kind", "state", "progress", "attempt", "error", "created"]
    assert said.err == ""
