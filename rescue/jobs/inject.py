"""The inject job: a medium and what to add, to a new medium. What every face that injects calls."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import msgspec

from builder.cache import default_cache
from builder.finished.opened import open_medium
from builder.inject.additions import Additions
from builder.inject.inject import InjectReport, inject
from builder.recipe.check import JOB_ADDRESSES, holds_secret
from core.documents import decode_written
from core.errors import LiferaftError, UsageError
from core.events import Event, Sink, Stage, WarningsKept
from core.files import read_small
from core.process import Runner
from rescue.jobs.build import passphrase_beside
from rescue.jobs.unattended import JOB_LIMIT, SECRETS, Job, trusted_keys

_JOB = "liferaft/job.json"
#: Links to folders of the same name below /usr: a layer with a folder in their place would hide all that they lead to,
#: the shell and init with it (Debian's usrmerge).
_MERGED = frozenset({"bin", "sbin", "lib", "lib32", "lib64", "libx32"})
#: Other filesystems are mounted over what a layer has there.
_COVERED = frozenset({"dev", "proc", "run", "sys", "tmp"})


def inject_medium(
    source: Path,
    out: Path | None,
    cache: Path | None,
    sink: Sink,
    runner: Runner,
    *,
    netboot: Path | None = None,
    drivers: tuple[Path, ...] = (),
    firmware: tuple[Path, ...] = (),
    windows: tuple[Path, ...] = (),
    files: tuple[str, ...] = (),
    job: Path | None = None,
) -> InjectReport:
    """Write a new medium from ``source`` with what is named; ``source`` stays as it is.

    Args:
        source: an ISO or the folder of a netboot set.
        out: the new ISO. netboot: the new netboot set. At least one of them.
        cache: the build cache; the user's own when None.
        files: ``SRC:DEST`` each, DEST an absolute path in the live system.
        job: a job document (docs/job.md); its passphrase files that are named without a folder are taken along.

    Raises:
        UsageError: nothing to add, or a word is wrong. Nothing was written.
        LiferaftError: as :func:`builder.inject.inject.inject`.
    """
    if not (drivers or firmware or windows or files or job):
        raise UsageError(
            "Nothing was named to be added.", hint="--driver, --firmware, --windows-driver, --file SRC:DEST, --job."
        )
    sink = WarningsKept(sink)
    beside = _beside(job, sink) if job else {}
    additions = Additions(
        drivers=drivers,
        firmware=firmware,
        windows=windows,
        files=dict(_placed(word) for word in files),
        beside=beside,
        # What lies beside the job was warned of, and so was a password in it.
        private=bool(sink.warnings) or (job is None and _keeps_secret(source)),
        without=_replaced(source, beside, sink),
    )
    if netboot is not None:
        _refuse_given_away(source, additions.beside)
    report = inject(source, out, netboot, additions, cache or default_cache(), runner, sink)
    return msgspec.structs.replace(report, warnings=sink.warnings)


class _OldJob(msgspec.Struct, frozen=True):
    """What matters of a job that a medium has, whatever else it says."""

    repository: str = ""
    report_url: str = ""
    passphrase_file: str = ""
    luks_passphrase_file: str = ""


def _keeps_secret(source: Path) -> bool:
    """Whether the medium's own job, which stays, has a passphrase beside it or a password in it. The file's mode does
    not say it: somebody may have copied it to where everybody reads."""
    with open_medium(source) as medium:
        if not medium.has(_JOB):
            return False
        try:
            old = msgspec.json.decode(medium.read(_JOB), type=_OldJob)
            if any(holds_secret(getattr(old, field), field) for field in JOB_ADDRESSES):
                return True
        except (msgspec.DecodeError, UnicodeDecodeError, LiferaftError):
            # Nobody knows what it names; whether the medium is damaged, is found out when it is read.
            return True
        return any((name := getattr(old, field)) and medium.has(f"liferaft/{name}") for field in SECRETS)


def _replaced(source: Path, beside: Mapping[str, Path], sink: Sink) -> frozenset[str]:
    """The passphrases that lie on the medium for the job that the new one replaces: nobody expects them there."""
    if _JOB not in beside:
        return frozenset()
    with open_medium(source) as medium:
        if not medium.has(_JOB):
            return frozenset()
        try:
            old = msgspec.json.decode(medium.read(_JOB), type=_OldJob)
        except (msgspec.DecodeError, UnicodeDecodeError):
            message = f"The old job of {source} cannot be read: a passphrase of its own stays on the new medium."
            sink(Event(stage=Stage.BUILD, message=message, warning=True))
            return frozenset()
        named = (getattr(old, field) for field in SECRETS)
        paths = {f"liferaft/{name}" for name in named if PurePosixPath(name).name == name and name}
        return frozenset(path for path in paths if medium.has(path) and path not in beside)


def _refuse_given_away(source: Path, beside: Mapping[str, Path]) -> None:
    """A netboot set gives its files to everybody who asks: not the passphrase of a job, unless the job says so.

    Of the medium's own job as of a new one: an ISO in a drawer may hold what a web server may not.
    """
    if _JOB in beside:
        content = beside[_JOB].read_bytes()
    else:
        with open_medium(source) as medium:
            if not medium.has(_JOB):
                return
            content = medium.read(_JOB)
    job = decode_written(content, Job, name=f"The job of {source}")
    named = (getattr(job, field) for field in SECRETS)
    if job.passphrase_over_http or not any(name and "://" not in name and not name.startswith("/") for name in named):
        return
    raise UsageError(
        "The job names a passphrase beside it, and a netboot set gives files to everybody who asks.",
        hint="Give an https:// address in the job, or allow it with passphrase_over_http.",
    )


def _placed(word: str) -> tuple[str, Path]:
    """``SRC:DEST`` to the path in the live system and the file; SRC may hold colons."""
    source, _, target = word.rpartition(":")
    # Two slashes in front are a root of their own (POSIX 4.13).
    path = PurePosixPath(re.sub("^//+", "/", target))
    if not source or not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
        raise UsageError(
            f"--file {word}: expected SRC:DEST, DEST an absolute path in the live system.",
            hint="For example --file ./net.rules:/etc/udev/rules.d/70-net.rules",
        )
    inside = path.relative_to("/")
    if inside.parts[0] in _COVERED:
        raise UsageError(
            f"--file {word}: nothing that a medium has in /{inside.parts[0]} is seen in the running system.",
            hint="Choose another place, for example below /usr/local or /etc.",
        )
    if inside.parts[0] in _MERGED:
        if len(inside.parts) == 1 and not Path(source).is_dir():
            raise UsageError(f"--file {word}: {path} is a folder of the live system.", hint="Name the file in it, too.")
        inside = "usr" / inside
    return str(inside), Path(source)


def _beside(path: Path, sink: Sink) -> dict[str, Path]:
    """A job that the medium would refuse on the day it is needed is refused now."""
    job = decode_written(read_small(path, f"The job {path}", JOB_LIMIT), Job, name=str(path))
    trusted_keys(job)
    for field in JOB_ADDRESSES:
        if holds_secret(getattr(job, field), f"{path}: {field}"):
            message = f"The medium will hold the password in {field} of {path}: whoever has the medium can read it."
            sink(Event(stage=Stage.BUILD, message=message, warning=True))
    found = {_JOB: path}
    for field in SECRETS:
        beside = passphrase_beside(field, getattr(job, field), path, sink)
        found |= {f"liferaft/{name}": file for name, file in beside.items()}
    return found
