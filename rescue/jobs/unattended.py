"""The unattended job: a document that says what to restore where, carried out without questions.

The document is named on the kernel command line (``liferaft.job=URL``), lies on the rescue medium
(from the recipe's ``[job]``), or is a file. Whatever happens, one line ``LIFERAFT-RESULT {json}``
goes to the consoles and, where the job names one, the result is sent to a URL.
"""

import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import msgspec

from core.documents import decode_written, encode
from core.errors import ExitCode, LiferaftError, RefusedError, UsageError
from core.events import Event, Sink, Stage
from core.process import Runner
from core.units import KIB
from images.probe import probe_machine
from images.store.http import fetch, post
from rescue.jobs.restore import BootChoice, RestoreChoices, TargetRule, plan_restore_to_disk, run_plan, target_disk
from restore.plan import Plan
from restore.report import Report

#: Where the medium of a recipe with ``[job]`` keeps it, once live-boot has mounted the medium.
MEDIUM_JOB = Path("/run/live/medium/liferaft/job.json")
KERNEL_PARAMETER = "liferaft.job="
_LIMIT = 256 * KIB


class After(StrEnum):
    """What the machine does when the job has ended well. After a failure it stays, so that somebody can look."""

    REBOOT = "reboot"
    POWEROFF = "poweroff"
    STAY = "stay"


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The job document.

    Attributes:
        repository: folder, ``file:`` or ``http(s)://``.
        target: which disk; must match exactly one.
        recovery_point: id, name or ``latest``.
        grow, verify, boot, onto_source: as for ``liferaft plan``.
        report_url: the result is sent there with POST; empty for nowhere.
        after: what to do then.
    """

    version: int = 1
    repository: str
    target: TargetRule
    recovery_point: str = "latest"
    grow: bool = False
    verify: bool = True
    boot: BootChoice = BootChoice.AUTO
    onto_source: bool = False
    report_url: str = ""
    after: After = After.STAY


class JobResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a job: ``exit_code`` as in DESIGN §8, ``seconds`` from start to end."""

    exit_code: int
    seconds: float
    error: str = ""
    hint: str = ""
    reasons: tuple[str, ...] = ()
    plan: str = ""
    report: Report | None = None


def boot_job_source(*, cmdline: Path = Path("/proc/cmdline"), medium: Path = MEDIUM_JOB) -> str | None:
    """Where the running rescue system finds its job: the kernel command line wins over the medium."""
    for word in cmdline.read_text().split():
        if word.startswith(KERNEL_PARAMETER):
            return word.removeprefix(KERNEL_PARAMETER)
    return str(medium) if medium.exists() else None


def read_job(source: str) -> Job:
    """The job document at a URL or path.

    Raises:
        UsageError: it is not a job, naming the field. UnreachableError: the URL does not answer.
    """
    if source.startswith(("http://", "https://")):
        content = fetch(source, _LIMIT)
    else:
        try:
            content = Path(source.removeprefix("file://").removeprefix("file:")).read_bytes()
        except OSError as error:
            raise UsageError(f"The job {source} cannot be read: {error.strerror}.") from None
    job = decode_written(content, Job, name=source)
    if job.version > 1:
        raise RefusedError(f"{source} needs job version {job.version}.", hint="Use a newer liferaft.")
    return job


def run_job(job: Job, runner: Runner, sink: Sink, show: Callable[[Plan], None]) -> JobResult:
    """Plan, show the plan, restore, verify, report. Errors become a result, never an exception.

    Args:
        show: is given the plan before anything is written.
    """
    started = time.monotonic()
    digest = ""
    try:
        sink(Event(stage=Stage.PROBE, message="Looking for the job's target"))
        disk = target_disk(probe_machine(runner), job.target)
        choices = RestoreChoices(grow=job.grow, verify=job.verify, boot=job.boot, onto_source=job.onto_source)
        plan = plan_restore_to_disk(job.repository, job.recovery_point, disk, choices, runner)
        digest = plan.digest
        show(plan)
        report = run_plan(plan, digest, runner, sink, repository=job.repository)
    except LiferaftError as error:
        return failed(error, time.monotonic() - started, digest)
    return JobResult(
        exit_code=ExitCode.WARNINGS if report.warnings else ExitCode.DONE,
        seconds=round(time.monotonic() - started, 1),
        plan=digest,
        report=report,
    )


def failed(error: LiferaftError, seconds: float, digest: str = "") -> JobResult:
    """The result of a job that ended in an error."""
    reasons = error.reasons if isinstance(error, RefusedError) else ()
    return JobResult(
        exit_code=error.code,
        seconds=round(seconds, 1),
        error=error.message,
        hint=error.hint,
        reasons=reasons,
        plan=digest,
    )


def result_line(result: JobResult) -> str:
    """The line that whoever watches the serial console looks for."""
    return f"LIFERAFT-RESULT {encode(result).decode().strip()}"


def send_result(url: str, result: JobResult) -> None:
    """Send the result to the URL a job names. Raises UnreachableError."""
    post(url, encode(result))


def end_machine(after: After, runner: Runner) -> None:
    """Reboot or power off, as told."""
    if after is not After.STAY:
        runner.run(["systemctl", "--no-block", after.value], timeout=60)
