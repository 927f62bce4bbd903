"""The write-usb job: an ISO onto a stick, alone or in front of a partition with a repository.

``plan_stick`` looks, refuses with every reason, and says what will be lost; nothing is written. ``write_planned``
looks again and does it. What a face shows and asks in between is the face's.
"""

import contextlib
import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec

from builder.stick.data import VOLUME_LABEL, DataImage, DataKind, data_image
from builder.stick.layout import (
    DATA_NAME,
    SECTOR,
    NotKeptError,
    StickLayout,
    against_table,
    data_extent,
    layout_keeping,
    layout_with_data,
    plain_layout,
    stick_table,
)
from builder.stick.source import StickSource, digest_of, judge_iso, on_device, open_iso
from builder.stick.stick import UnprovenError, Written, write_stick
from core.errors import DeviceError, RefusedError, UsageError
from core.events import Event, Sink, Stage
from core.process import Runner
from core.units import format_size
from images.model.layout import DiskIdentity, Partition
from images.probe import medium_obstacle
from images.sources import open_source
from rescue.jobs.stick_repository import PlannedRepository, StickRepository, fill_repository
from restore.target.backing import inode_of
from restore.target.candidates import Candidate, name_target
from restore.target.partitions import reread_table
from restore.target.target import open_target

#: The end of the reason against a disk that only a person may say to be the right one.
NOT_REMOVABLE = "does not say that it is removable"
#: Where a running system has what it cannot be without.
_SYSTEM = ("/", "/boot", "/boot/efi", "/efi", "/usr", "/var", "/home")


class StickChoices(msgspec.Struct, frozen=True, kw_only=True):
    """What a person decides.

    Attributes:
        data: make a partition for data; filesystem: what it holds. keep_data: leave the one that is there alone.
        not_removable: take a disk that does not say that it is removable.
        any_iso: take an image that is not liferaft's.
    """

    data: bool = False
    filesystem: DataKind = DataKind.EXFAT
    keep_data: bool = False
    not_removable: bool = False
    any_iso: bool = False


class StickPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What will be written, and on what; nothing against it was found."""

    iso: StickSource
    stick: Candidate
    layout: StickLayout
    choices: StickChoices
    repository: PlannedRepository | None = None


class StickData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The data partition. Bytes; ``filesystem`` and ``uuid`` of a new one, empty where it was ``kept``."""

    number: int
    offset: int
    size: int
    kept: bool
    filesystem: str = ""
    uuid: str = ""


class StickReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was done.

    Attributes:
        node: the stick's, for showing only. size: its bytes.
        iso, iso_size, sha256, medium: the file, its bytes and digest, and what it is.
        written, verified: bytes; the latter were read back past the caches and compared.
        write_seconds, verify_seconds: of the ISO alone. seconds: of everything.
        warnings: what the person must know afterwards.
    """

    version: int = 1
    node: str
    identity: DiskIdentity
    size: int
    iso: str
    iso_size: int
    sha256: str
    medium: str
    written: int
    verified: int
    write_seconds: float
    verify_seconds: float
    seconds: float
    data: StickData | None = None
    repository: StickRepository | None = None
    warnings: tuple[str, ...] = ()


def plan_stick(
    iso: Path,
    device: Path,
    choices: StickChoices,
    runner: Runner,
    sink: Sink,
    *,
    repository: PlannedRepository | None = None,
) -> StickPlan:
    """What writing would do, or every reason against. Nothing is written.

    Args:
        iso: a file, or the CD or stick that a medium is on, also the one that runs.
        device: a whole disk, or a plain file that is as large as a stick.

    Raises:
        UsageError: there is no such ISO or device, or the choices contradict each other.
        DamagedError: the ISO is no liferaft medium, cut short or altered.
        RefusedError: with every reason.
    """
    _refuse_contradictions(choices, repository)
    stick = _look_at(device, repository, runner)
    # A minute of reading is no way to tell somebody that a disk is mounted.
    reasons = [*_against(stick, iso, choices)]
    if reasons:
        raise _refused(stick, reasons)
    source = judge_iso(iso, sink, strange=choices.any_iso)
    layout = _lay_out(source, stick, choices)
    reasons += against_table(layout)
    place = data_extent(layout)
    if repository is not None and place is not None:
        reasons += repository.against(place.size, kept=layout.kept)
    if reasons:
        raise _refused(stick, reasons)
    return StickPlan(iso=source, stick=stick, layout=layout, choices=choices, repository=repository)


def write_planned(plan: StickPlan, runner: Runner, sink: Sink) -> StickReport:
    """Write the stick, read it back, and put the repository on it.

    Raises:
        RefusedError: the stick or the ISO is not the one any more that was looked at. Nothing was written.
        DeviceError: the stick failed, or does not give back what was written.
    """
    started = time.monotonic()
    _refuse_changed(plan, runner)
    with contextlib.ExitStack() as stack:
        iso = stack.enter_context(open_iso(Path(plan.iso.path)))
        if iso.size != plan.iso.size:
            raise RefusedError(
                f"{plan.iso.path} has {iso.size} bytes now, and had {plan.iso.size}. Nothing was written."
            )
        # Built again while somebody was asked, it may have the same size.
        sink(Event(stage=Stage.CHECK, message=f"Reading {plan.iso.path} once more"))
        if digest_of(iso, sink) != plan.iso.sha256:
            raise RefusedError(f"{plan.iso.path} is not what it was when it was looked at. Nothing was written.")
        # Before the stick is opened: a filesystem that cannot be made costs nobody a stick.
        data = stack.enter_context(_new_data(plan, runner))
        target = stack.enter_context(open_target(plan.stick))
        sink(Event(stage=Stage.PREFLIGHT, message=f"Taking away what {plan.stick.node} starts now"))
        try:
            written = write_stick(iso, target, plan.layout, data, sink, suspect=not plan.stick.plain)
        except UnprovenError:
            raise
        except DeviceError as error:
            hint = "It starts nothing now. Write it again; if that fails too, take another stick."
            raise DeviceError(error.message, hint=hint) from None
    if plan.repository is not None:
        sink(Event(stage=Stage.COPY, message=f"{plan.stick.node} starts now; its repository comes next"))
    warnings = _tell_kernel(plan, runner)
    repository = None
    if plan.repository is not None and plan.layout.data is not None:
        repository = fill_repository(plan.repository, plan.stick.node, plan.layout.data, runner, sink)
        warnings += repository.problems
    sink(Event(stage=Stage.DONE, message=f"{plan.stick.node} is ready"))
    return _report(plan, written, data, repository, warnings, time.monotonic() - started)


def _refuse_contradictions(choices: StickChoices, repository: PlannedRepository | None) -> None:
    if choices.data and choices.keep_data:
        raise UsageError("A partition for data is made anew or left alone, not both.", hint="Choose one.")
    if repository is not None and not (choices.data or choices.keep_data):
        raise UsageError("A repository needs a partition for data.", hint="Choose a new one, or keep the one there.")


def _look_at(device: Path, repository: PlannedRepository | None, runner: Runner) -> Candidate:
    """The stick; a medium that does not run is no obstacle here: it is what gets a newer ISO."""
    found = name_target(device, repository.source if repository else "", runner)
    # The one that runs is mounted, and that is told besides.
    idle = tuple(obstacle for obstacle in found.obstacles if obstacle != medium_obstacle(found.node))
    return msgspec.structs.replace(found, obstacles=idle)


def _against(stick: Candidate, iso: Path, choices: StickChoices) -> Iterator[str]:
    yield from stick.obstacles
    places = tuple(f"is mounted on {place}" for place in _SYSTEM)
    if any(obstacle.endswith(places) for obstacle in stick.obstacles):
        yield f"{stick.node} is the disk that this system runs from"
    is_device = stat.S_ISBLK(Path(stick.node).stat().st_mode)
    if not (stick.file or stick.removable or choices.not_removable):
        yield f"{stick.node} {NOT_REMOVABLE}"
    if is_device and not os.access(stick.node, os.W_OK):
        yield f"writing {stick.node} needs root: run it with sudo, or write an image file"
    if (stick.inode and stick.inode == inode_of(iso)) or (on_device(iso) and _is_on(iso, stick)):
        yield f"{stick.node} is the ISO itself"
    elif iso.is_file() and iso.stat().st_size > stick.size:
        yield (
            f"{stick.node} is too small: it has {format_size(stick.size)}, and the ISO has "
            f"{format_size(iso.stat().st_size)}"
        )
    if stick.sector_size != SECTOR:
        yield (
            f"{stick.node} has sectors of {stick.sector_size} bytes; the ISO's partition table and EFI image are made "
            f"for {SECTOR}, and no firmware would find them"
        )
    elif stick.size % SECTOR:
        yield f"{stick.node} has {stick.size} bytes, which are not whole sectors of {SECTOR}"


def _is_on(iso: Path, stick: Candidate) -> bool:
    """Whether the medium that is to be written lies on the stick, which is a device, or a part of it."""
    node = Path(os.path.realpath(iso)).name
    parts = Path("/sys/class/block") / Path(stick.node).name
    return node == Path(stick.node).name or (parts / node).exists()


def _refused(stick: Candidate, reasons: list[str]) -> RefusedError:
    message = f"{stick.node} may not be written." if len(reasons) > 1 else f"{reasons[0]}."
    return RefusedError(message, reasons=tuple(reasons), hint="liferaft probe lists the disks. Nothing was written.")


def _lay_out(source: StickSource, stick: Candidate, choices: StickChoices) -> StickLayout:
    if not (choices.data or choices.keep_data):
        return plain_layout(source.size, source.table, stick.size)
    if source.table is None:
        raise RefusedError(
            f"{source.path} has no GPT: a partition for data cannot be added to it.",
            hint="Write it without a partition for data.",
        )
    if choices.data:
        linux = choices.filesystem is DataKind.EXT4
        return layout_with_data(source.size, source.table, stick.size, uuid.uuid4(), linux=linux)
    with open_source(Path(stick.node), sector_size=SECTOR) as now:
        table = stick_table(now)
    if table is None:
        raise NotKeptError(
            f"{stick.node} has no GPT: there is no data partition to keep.",
            hint="Write it with a new partition for data, or without one.",
        )
    return layout_keeping(source.size, source.table, table, stick.size)


def _refuse_changed(plan: StickPlan, runner: Runner) -> None:
    """Between the plan and the confirmation minutes may pass, and somebody may plug in another stick."""
    now = _look_at(Path(plan.stick.node), plan.repository, runner)
    if now != plan.stick:
        reasons = now.obstacles or (f"{plan.stick.node} is not what it was when it was looked at",)
        raise _refused(now, list(reasons))


@contextlib.contextmanager
def _new_data(plan: StickPlan, runner: Runner) -> Iterator[DataImage | None]:
    place = data_extent(plan.layout)
    if place is None or plan.layout.kept:
        yield None
        return
    with data_image(plan.choices.filesystem, place, runner) as data:
        yield data


def _tell_kernel(plan: StickPlan, runner: Runner) -> tuple[str, ...]:
    """Let the kernel read the new table; a desktop may have mounted a partition of it already, which is no harm."""
    try:
        reread_table(plan.stick.node, runner)
    except DeviceError as error:
        data = plan.layout.data
        if data is not None and _kernel_knows(plan.stick.node, data):
            return ()
        if plan.repository is not None:
            raise
        return (f"{error.message.rstrip('.')}: unplug the stick and plug it in again to see its new partitions.",)
    return ()


def _kernel_knows(node: str, part: Partition) -> bool:
    """Whether the kernel has that partition at that place; sysfs counts in 512 bytes (Documentation/ABI)."""
    for folder in (Path("/sys/class/block") / Path(node).name).glob("*/partition"):
        if folder.read_text().strip() == str(part.number):
            start, size = ((folder.parent / name).read_text().strip() for name in ("start", "size"))
            return (start, size) == (str(part.start_lba), str(part.sector_count))
    return False


def _report(
    plan: StickPlan,
    written: Written,
    data: DataImage | None,
    repository: StickRepository | None,
    warnings: tuple[str, ...],
    seconds: float,
) -> StickReport:
    return StickReport(
        node=plan.stick.node,
        identity=plan.stick.identity,
        size=plan.stick.size,
        iso=plan.iso.path,
        iso_size=plan.iso.size,
        sha256=plan.iso.sha256,
        medium=plan.iso.title,
        written=written.written,
        verified=written.verified,
        write_seconds=written.write_seconds,
        verify_seconds=written.verify_seconds,
        seconds=round(seconds, 3),
        data=_data(plan, data),
        repository=repository,
        warnings=warnings,
    )


def _data(plan: StickPlan, data: DataImage | None) -> StickData | None:
    place, part = data_extent(plan.layout), plan.layout.data
    if place is None or part is None:
        return None
    return StickData(
        number=part.number,
        offset=place.start,
        size=place.size,
        kept=plan.layout.kept,
        filesystem=plan.choices.filesystem if data else "",
        uuid=data.uuid if data else "",
    )


def loses_data(plan: StickPlan) -> bool:
    """Whether the stick has a partition for data that is not kept."""
    return not plan.layout.kept and any(
        occupant.label in (DATA_NAME, VOLUME_LABEL) for occupant in plan.stick.occupants
    )


def describe(plan: StickPlan) -> str:
    """The plan for people: what is written, what is lost, what is kept."""
    stick, place = plan.stick, data_extent(plan.layout)
    name = " ".join(word for word in (stick.identity.model, stick.identity.serial) if word)
    lines = [f"{plan.iso.path}: {plan.iso.title}"]
    lines.append(f"goes onto {stick.node}: {name or 'an image file'}, {format_size(stick.size)}.")
    if plan.layout.kept and place is not None:
        lines.append(f"The data partition ({format_size(place.size)}) is kept; everything before it is lost:")
    else:
        lines.append("Everything on it is lost:" if stick.contents else "Nothing that is known is on it.")
    lines += [f"  {content}" for content in stick.contents]
    if loses_data(plan):
        lines.append("That includes its partition for data.")
    if place is not None and not plan.layout.kept:
        lines.append(f"A partition for data ({plan.choices.filesystem}, {format_size(place.size)}) is made behind it.")
    if plan.repository is not None:
        lines.append(plan.repository.describe())
    return "\n".join(lines)
