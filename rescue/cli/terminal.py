"""Progress on a terminal: one line that is rewritten, messages above it; or JSON lines for programs."""

import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

import click

from core.documents import encode
from core.events import Event, Sink, Stage, ignore
from core.units import format_duration, format_size

_NAMES = {
    Stage.CAPTURE: "Capturing",
    Stage.STREAM: "Restoring",
    Stage.VERIFY: "Verifying",
}


class TerminalSink:
    """Renders events to a stream (stderr). On a terminal the progress line is rewritten in place; elsewhere a
    line is printed every ten seconds, so that a log stays readable."""

    QUIET_INTERVAL = 10.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._shown = False
        self._last = 0.0
        self._lock = threading.Lock()

    def __call__(self, event: Event, /) -> None:
        with self._lock:
            if event.total or event.done:
                self._progress(event)
            elif event.message:
                self._clear()
                self._stream.write(f"{'warning: ' if event.warning else ''}{event.message}\n")
                self._stream.flush()

    def close(self) -> None:
        """Leave the last progress line standing."""
        with self._lock:
            if self._shown:
                self._stream.write("\n")
                self._shown = False

    def _progress(self, event: Event) -> None:
        text = progress_text(event)
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{text[:width]}")
            self._shown = True
        elif time.monotonic() - self._last >= self.QUIET_INTERVAL or event.done >= event.total > 0:
            self._last = time.monotonic()
            self._stream.write(text + "\n")
        self._stream.flush()

    def _clear(self) -> None:
        if self._shown:
            self._stream.write("\n")
            self._shown = False


def progress_text(event: Event) -> str:
    """One line: what, how much of how much, rate, ETA or stall."""
    words = [_NAMES.get(event.stage, event.stage.capitalize())]
    if event.total:
        words.append(f"{min(event.done / event.total, 1):4.0%}")
        words.append(f"{format_size(event.done)} of {format_size(event.total)}")
    else:
        words.append(format_size(event.done))
    if event.rate:
        words.append(f"{format_size(int(event.rate))}/s")
    if event.stalled:
        words.append(f"NO PROGRESS for {format_duration(event.stalled)}")
    elif event.eta is not None and event.done < event.total:
        words.append(f"{format_duration(event.eta)} left")
    return "  ".join(words)


class JsonSink:
    """Writes every event as one JSON line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, event: Event, /) -> None:
        with self._lock:
            self._stream.write(encode(event).decode())
            self._stream.flush()


def open_sink(style: str) -> Sink:
    """The sink for ``--progress``: ``json``, ``none`` or ``text``."""
    if style == "json":
        return JsonSink(sys.stderr)
    if style == "none":
        return ignore
    sink = TerminalSink(sys.stderr)
    click.get_current_context().call_on_close(sink.close)
    return sink


progress_option = click.option(
    "--progress",
    type=click.Choice(["text", "json", "none"]),
    default="text",
    show_default=True,
    help="How progress is told on stderr; json is one event a line.",
)
hooks_option = click.option(
    "--hooks",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder of the site's own programs, run before and after the work (docs/hooks.md).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document on stdout.")
repository_option = click.option(
    "--repo", "repository", required=True, metavar="REPO", help="The repository: a folder, file:… or http(s)://…"
)
