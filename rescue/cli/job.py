"""``liferaft job``: carry out a job document without questions."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click

from core.errors import ExitCode, LiferaftError, StoppedError, UsageError
from core.events import Event
from core.process import SystemRunner
from core.stopping import undisturbed
from rescue.cli.terminal import TerminalSink
from rescue.jobs.records import keep_record
from rescue.jobs.unattended import (
    After,
    Job,
    JobResult,
    boot_job_source,
    end_machine,
    failed,
    read_job,
    result_line,
    run_job,
    send_result,
)
from restore.plan.render import render
from restore.report import render_report


@click.command("job")
@click.argument("source", metavar="[URL|FILE]", required=False)
@click.option(
    "--from-boot", is_flag=True, help="Take the job from the kernel command line (liferaft.job=) or the medium."
)
@click.option(
    "--console",
    "consoles",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also write everything to this terminal device.",
)
def command(source: str | None, from_boot: bool, consoles: tuple[Path, ...]) -> int:
    """Restore as a job document says: unattended, verified, with a report.

    The document is JSON (docs/job.md). The plan is shown, carried out, and the result printed as one
    line LIFERAFT-RESULT {json}; it is also sent to the job's report_url. Then the machine reboots,
    powers off or stays, as the job says; after a failure it stays.

    \b
    liferaft job http://server/job.json
    """
    with contextlib.ExitStack() as stack:
        faces = [_Face(stream) for stream in _streams(stack, consoles)]
        started = time.monotonic()
        job: Job | None = None
        runner = SystemRunner()
        try:
            named = boot_job_source() if from_boot else source
            if named is None:
                raise UsageError("No job is named.", hint="Name a URL or a file, or boot with liferaft.job=URL.")
            job = read_job(named)
            result = run_job(job, runner, lambda event: _each(faces, event), lambda plan: _tell(faces, render(plan)))
        except LiferaftError as error:
            result = failed(error, time.monotonic() - started)
        except KeyboardInterrupt:
            told = StoppedError("The job was stopped.", hint="Run it again: it goes on where it stopped.")
            result = failed(told, time.monotonic() - started)
        except Exception as error:
            # Whoever watches the serial line waits for a result: a bug must give one too.
            logging.exception("the job failed")
            bug = LiferaftError(f"liferaft itself failed: {type(error).__name__}: {error}")
            result = failed(bug, time.monotonic() - started)
        stopped = _finish(job, result, faces)
    if job is not None and not result.error and not stopped:
        end_machine(job.after, runner)
    return ExitCode.STOPPED if stopped else result.exit_code


def _finish(job: Job | None, result: JobResult, faces: list["_Face"]) -> bool:
    """Tell what became of the job to all who watch; the line with the result comes whatever else happens.

    Returns whether it was told to stop meanwhile.
    """
    stopped = False
    try:
        _show(result, faces)
        _send(job, result, faces)
    except KeyboardInterrupt:
        # A server that does not answer takes minutes: what was done must not be lost with whoever has no patience.
        stopped = True
    try:
        with undisturbed():
            _close(job, result, faces, stopped=stopped)
    except KeyboardInterrupt:
        stopped = True
    return stopped


def _close(job: Job | None, result: JobResult, faces: list["_Face"], *, stopped: bool) -> None:
    """The last lines."""
    if stopped and job is not None and job.report_url:
        _tell(faces, "warning: the report may not have been sent: liferaft was told to stop")
    keep_record("job-result", result)
    _tell(faces, result_line(result))
    if job is not None and job.after is not After.STAY:
        stays = result.error or stopped
        _tell(faces, "The machine stays as it is." if stays else f"The machine will {job.after} now.")


def _show(result: JobResult, faces: list["_Face"]) -> None:
    """The report, or what went wrong."""
    if result.report is not None:
        _tell(faces, render_report(result.report))
    if result.error:
        _tell(faces, f"FAILED: {result.error}")
        for line in (*result.reasons[1:], f"Hint: {result.hint}" if result.hint else ""):
            if line and line != result.error:
                _tell(faces, f"  {line}")


def _send(job: Job | None, result: JobResult, faces: list["_Face"]) -> None:
    """The result, to where the job says."""
    if job is not None and job.report_url:
        try:
            send_result(job.report_url, result)
        except LiferaftError as error:
            _tell(faces, f"warning: the report could not be sent: {error.message}")


class _Face:
    """A terminal that shows the job."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._sink = TerminalSink(stream)

    def event(self, event: Event) -> None:
        """Show progress."""
        self._sink(event)

    def tell(self, text: str) -> None:
        """Show lines."""
        self._sink.close()
        self._stream.write(text.rstrip("\n") + "\n")
        self._stream.flush()


def _each(faces: list[_Face], event: Event) -> None:
    for face in faces:
        face.event(event)


def _tell(faces: list[_Face], text: str) -> None:
    for face in faces:
        face.tell(text)


def _streams(stack: contextlib.ExitStack, consoles: tuple[Path, ...]) -> Iterator[TextIO]:
    """Standard output, and the consoles that are really there (a serial port without hardware is none)."""
    yield sys.stdout
    for path in consoles:
        with contextlib.suppress(OSError):
            yield stack.enter_context(path.open("w", buffering=1))
