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

from builder.site.document import site_hooks
from core.documents import decode_written, encode
from core.errors import ExitCode, LiferaftError, RefusedError, UsageError
from core.events import Event, Sink, Stage
from core.files import read_small
from core.process import Runner
from core.units import KIB
from images.stack.keys import Keys
from images.store.access import Access
from images.store.http import fetch, post, split_credentials
from images.store.signature import read_public_key
from rescue.jobs.access import LIMIT, access_from, parse_passphrase, read_passphrase
from rescue.jobs.luks_keys import parse_key, read_keys
from rescue.jobs.placing import TargetRule
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore_by_rules, run_plan
from restore.plan.plan import Plan
from restore.planning.rules import PartitionRule, TableChoice
from restore.report import Report

#: Where the medium of a recipe with ``[job]`` keeps it, once live-boot has mounted the medium.
MEDIUM_JOB = Path("/run/live/medium/liferaft/job.json")
KERNEL_PARAMETER = "liferaft.job="
#: Bytes that a job document may have.
JOB_LIMIT = 256 * KIB
#: Fields that name the file of a passphrase.
SECRETS = ("passphrase_file", "luks_passphrase_file")


class After(StrEnum):
    """What the machine does when the job has ended well. After a failure it stays, so that somebody can look."""

    REBOOT = "reboot"
    POWEROFF = "poweroff"
    STAY = "stay"


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The job document.

    Attributes:
        repository: folder, ``file:`` or ``http(s)://``.
        target: which disk; must match exactly one. For a recovery point with one disk.
        targets: the same for several disks, each with the ``disk`` that goes there.
        skip: ids of disks of the recovery point that are not restored.
        match: disks without a target go where they match, when that is clear (docs/job.md).
        recovery_point: id, name or ``latest``.
        grow, grow_all, table, verify, boot, onto_source, unique, degraded: as for ``liferaft plan``.
        rules: what becomes of single partitions (docs/job.md).
        passphrase_file: where the passphrase of an encrypted repository is: a file of the rescue system, or an
            ``https://`` address. A relative path begins at the folder of the job document.
        luks_passphrase_file: the same for the encrypted disks of the recovery point.
        passphrase_over_http: allow an ``http://`` address, which everybody in the network can read along.
        require_signature: public keys as PEM text; the recovery point must be signed with one of them.
        scratch: the folder where filesystems are made smaller, when they must be, a whole path; empty for TMPDIR's.
        report_url: the result is sent there with POST; empty for nowhere.
        after: what to do then.
    """

    version: int = 1
    repository: str
    target: TargetRule | None = None
    targets: tuple[TargetRule, ...] = ()
    skip: tuple[str, ...] = ()
    match: bool = False
    recovery_point: str = "latest"
    grow: bool = False
    grow_all: bool = False
    rules: tuple[PartitionRule, ...] = ()
    table: TableChoice = TableChoice.KEEP
    verify: bool = True
    boot: BootChoice = BootChoice.AUTO
    onto_source: bool = False
    unique: bool = False
    degraded: bool = False
    passphrase_file: str = ""
    luks_passphrase_file: str = ""
    passphrase_over_http: bool = False
    require_signature: tuple[str, ...] = ()
    scratch: str = ""
    report_url: str = ""
    after: After = After.STAY

    def __post_init__(self) -> None:
        if self.target is not None and self.targets:
            raise ValueError("a job takes target or targets, not both")
        if self.target is None and not self.targets and not self.match:
            raise ValueError('a job names its target, or targets, or says "match": true')
        if self.grow and self.grow_all:
            raise ValueError("grow and grow_all say different things")
        if self.scratch and not self.scratch.startswith("/"):
            raise ValueError(f"scratch is {self.scratch!r}: it is a whole path, which begins with /")
        for field in SECRETS:
            if not getattr(self, field).startswith("http://") or self.passphrase_over_http:
                continue
            raise ValueError(
                f"{field} is an http:// address, where everybody in the network can read the passphrase along: "
                "give an https:// address or a file, or allow it with passphrase_over_http"
            )


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
    if _is_url(source):
        content = fetch(source, JOB_LIMIT)
    else:
        content = read_small(Path(source.removeprefix("file://").removeprefix("file:")), f"The job {source}", JOB_LIMIT)
    job = decode_written(content, Job, name=source)
    if job.version > 1:
        raise RefusedError(f"{source} needs job version {job.version}.", hint="Use a newer liferaft.")
    return _placed(job, source)


def _placed(job: Job, source: str) -> Job:
    """The job with relative files of passphrases made absolute: they lie beside the document."""
    relative = {
        field: named
        for field in SECRETS
        if (named := getattr(job, field)) and not _is_url(named) and not Path(named).is_absolute()
    }
    if not relative:
        return job
    if _is_url(source):
        field, named = next(iter(relative.items()))
        raise UsageError(
            f"{source}: {field} is {named}, and beside a URL there are no files.",
            hint="Give the full path on the rescue system, or an https:// address.",
        )
    folder = Path(source.removeprefix("file://").removeprefix("file:")).absolute().parent
    return msgspec.structs.replace(job, **{field: str(folder / named) for field, named in relative.items()})


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def trusted_keys(job: Job) -> tuple[bytes, ...]:
    """The keys of ``require_signature``, 32 bytes each.

    Raises:
        UsageError: one is not an Ed25519 public key.
    """
    return tuple(
        read_public_key(text.encode(), f"Key {number} of require_signature")
        for number, text in enumerate(job.require_signature, 1)
    )


def job_access(job: Job) -> Access:
    """What a job brings to its repository. Nobody is asked: there is nobody.

    Raises:
        UsageError: the passphrase file or a key is not one. UnreachableError, DeviceError: it cannot be fetched.
    """
    passphrase = None
    if _is_url(job.passphrase_file):
        shown, _ = split_credentials(job.passphrase_file)
        passphrase = parse_passphrase(fetch(job.passphrase_file, LIMIT), shown)
    elif job.passphrase_file:
        # Not a word about who else may read it: on a medium everybody may.
        passphrase = read_passphrase(Path(job.passphrase_file), lambda warning: None)
    return access_from(passphrase, trusted=trusted_keys(job))


def job_keys(job: Job) -> Keys:
    """What opens the encrypted disks of a job's recovery point. Raises as :func:`job_access` does."""
    if _is_url(job.luks_passphrase_file):
        shown, _ = split_credentials(job.luks_passphrase_file)
        return Keys(passphrases=(parse_key(fetch(job.luks_passphrase_file, LIMIT), shown),))
    return read_keys((), (Path(job.luks_passphrase_file),) if job.luks_passphrase_file else ())


def run_job(job: Job, runner: Runner, sink: Sink, show: Callable[[Plan], None]) -> JobResult:
    """Plan, show the plan, restore, verify, report. Errors become a result, never an exception.

    Args:
        show: is given the plan before anything is written.
    """
    started = time.monotonic()
    digest = ""
    try:
        access, keys = job_access(job), job_keys(job)
        sink(Event(stage=Stage.PROBE, message="Looking for the job's target"))
        rules = (job.target,) if job.target is not None else job.targets
        choices = RestoreChoices(
            grow=job.grow,
            grow_all=job.grow_all,
            rules=job.rules,
            table=job.table,
            verify=job.verify,
            boot=job.boot,
            onto_source=job.onto_source,
            unique=job.unique,
            degraded=job.degraded,
            skip=job.skip,
            match=job.match,
        )
        plan = plan_restore_by_rules(job.repository, job.recovery_point, rules, choices, runner, access, sink)
        digest = plan.digest
        show(plan)
        scratch = Path(job.scratch) if job.scratch else None
        report = run_plan(
            plan,
            digest,
            runner,
            sink,
            repository=job.repository,
            hooks=site_hooks(),
            access=access,
            keys=keys,
            scratch=scratch,
        )
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
