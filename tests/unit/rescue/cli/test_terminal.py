import errno
import io
import json

import pytest

from core.events import Event, Stage
from rescue.cli.terminal import JsonSink, TerminalSink, progress_text, tell

MIB = 1 << 20


def test_progress_says_how_much_how_fast_and_how_long() -> None:
    event = Event(stage=Stage.STREAM, done=50 * MIB, total=200 * MIB, rate=10.0 * MIB, eta=15.0)
    assert progress_text(event) == "Restoring   25%  50.00 MiB of 200.00 MiB  10.00 MiB/s  15 s left"


def test_a_stall_takes_the_place_of_the_eta() -> None:
    event = Event(stage=Stage.VERIFY, done=1, total=200, eta=15.0, stalled=12.0)
    assert "NO PROGRESS for 12 s" in progress_text(event)
    assert "left" not in progress_text(event)


def test_a_stall_is_told_of_a_stage_without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TerminalSink, "QUIET_INTERVAL", 0.0)
    stream = io.StringIO()
    sink = TerminalSink(stream)
    sink(Event(stage=Stage.PREFLIGHT, message="Opening the repository s3://b/r", stalled=75.0))
    sink(Event(stage=Stage.PREFLIGHT, message="Opening the repository s3://b/r: it goes on after 1 min 20 s"))
    assert stream.getvalue().splitlines() == [
        "Checking before the first write  NO PROGRESS for 1 min 15 s: Opening the repository s3://b/r",
        "Opening the repository s3://b/r: it goes on after 1 min 20 s",
    ]


def test_a_log_gets_lines_and_no_control_characters() -> None:
    stream = io.StringIO()
    sink = TerminalSink(stream)
    sink(Event(stage=Stage.STREAM, message="starting"))
    sink(Event(stage=Stage.STREAM, done=1, total=2))
    sink(Event(stage=Stage.STREAM, done=2, total=2))
    sink(Event(stage=Stage.BOOT, message="careful", warning=True))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "starting"
    assert lines[-1] == "warning: careful"
    assert "100%" in lines[-2]
    assert "\x1b" not in stream.getvalue()


def test_a_log_has_no_progress_of_the_first_seconds_and_no_line_twice() -> None:
    stream = io.StringIO()
    sink = TerminalSink(stream)
    for done in (1, 2, 2):
        sink(Event(stage=Stage.CHECK, done=done, total=2))
    assert stream.getvalue() == "Checking  100%  2 bytes of 2 bytes\n"


def test_the_result_is_an_event_where_events_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    tell("text", "done")
    tell("json", "done")
    plain, event = capsys.readouterr().err.splitlines()
    assert plain == "done"
    assert json.loads(event) == {"stage": "done", "message": "done"}


def test_a_terminal_gets_one_line_that_is_rewritten() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    sink = TerminalSink(stream)
    for done in range(3):
        sink(Event(stage=Stage.STREAM, done=done, total=2))
    sink.close()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().count("\r") == 3


def test_json_lines() -> None:
    stream = io.StringIO()
    JsonSink(stream)(Event(stage=Stage.STREAM, done=1, total=2))
    assert json.loads(stream.getvalue()) == {"stage": "stream", "done": 1, "total": 2}


class _Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_work_goes_on_when_its_progress_cannot_be_written() -> None:
    for sink in (TerminalSink(_Full()), JsonSink(_Full())):
        sink(Event(stage=Stage.STREAM, message="starting"))
        sink(Event(stage=Stage.STREAM, done=2, total=2))
