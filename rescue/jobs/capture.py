"""The capture job: disks or image files into a repository."""

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from core.errors import RefusedError, UsageError
from core.events import Event, Sink, Stage
from core.process import Runner
from core.version import tool_name
from hooks.contract import HookContext, HookStage
from hooks.run import run_hooks
from images.capture import CaptureResult, capture
from images.filesystems.detect import Asked
from images.filesystems.partclone import Partclone
from images.model.layout import DiskIdentity
from images.probe import BlockDevice, block_devices, disk_holding, disk_of_path, identity_of, probe_machine
from images.sources import FileSource, open_source
from images.stack.keys import Keys
from images.store.access import Access
from images.store.backend import LocalBackend
from images.store.connect import connect
from images.store.create import open_or_create
from images.store.digest_list import check_replaceable
from images.store.signature import SigningKey
from images.store.writer import writable
from images.survey import DiskSurvey, image_sector_size, survey_disk
from rescue.jobs.capture_stack import follow_containers, kept_as_asked, say_not_followed
from rescue.jobs.lost import loss_warnings, losses

#: Seconds between looks at a device that somebody keeps for himself.
_PATIENCE = (0.2, 0.5, 1.0)


def capture_disks(
    sources: Sequence[Path],
    repository: str,
    *,
    name: str,
    runner: Runner,
    sink: Sink,
    hooks: Path | None = None,
    sector_size: int = 0,
    access: Access | None = None,
    sign: SigningKey | None = None,
    digest_list: Path | None = None,
    keys: Keys | None = None,
    part_only: bool = False,
) -> CaptureResult:
    """Take one recovery point of one or several whole disks.

    Args:
        sources: block devices or raw image files.
        repository: a folder; made when it is missing or empty.
        name: for people; empty for a name made of the host and the sources.
        sector_size: of image files, in bytes; 0 for what their tables say. Devices say their own.
        hooks: the site's hooks folder, run before the first read and after the last write.
        access: the passphrase of an encrypted repository. sign: signs the recovery point.
        digest_list: a file that spares the next capture of the same disks the repository's indexes; made when missing.
        keys: of encrypted containers on devices.
        part_only: arrays, LUKS and LVM are not followed, but kept as they lie.

    Raises:
        UsageError, RefusedError, DamagedError, DeviceError: nothing was taken; the source was not touched.
    """
    sink(Event(stage=Stage.PROBE, message="Looking at the disks"))
    real = [os.path.realpath(source) for source in sources]
    if len(set(real)) < len(real):
        raise UsageError(f"{next(path for path in real if real.count(path) > 1)} is named twice.")
    if digest_list is not None:
        check_replaceable(digest_list)
    backend = writable(connect(repository))
    is_device = [source.exists() and stat.S_ISBLK(source.stat().st_mode) for source in sources]
    devices = block_devices(runner) if any(is_device) else ()
    for source, device in zip(sources, is_device, strict=True):
        if device:
            _guard_source(source, devices, backend.folder if isinstance(backend, LocalBackend) else None)
    context = HookContext(
        stage=HookStage.BEFORE_CAPTURE, repository=backend.location, disks=tuple(str(source) for source in sources)
    )
    run_hooks(hooks, context, runner, sink)
    with contextlib.ExitStack() as stack:
        ask = Partclone(runner).read
        surveys = tuple(
            _survey(stack, path, f"disk{number}", devices, sector_size, ask) for number, path in enumerate(sources)
        )
        followed = None
        if part_only:
            surveys = tuple(kept_as_asked(survey) for survey in surveys)
        elif all(is_device):
            followed = follow_containers(stack, surveys, real, devices, keys or Keys(), runner, sink, ask)
        else:
            say_not_followed(surveys, sink)
        opened = open_or_create(backend, access)
        result = capture(
            opened,
            surveys,
            name=name or f"{socket.gethostname()}-{'-'.join(source.stem for source in sources)}",
            origin=f"{socket.gethostname()}: {', '.join(_origin(survey) for survey in surveys)}",
            machine=probe_machine(runner) if any(is_device) else None,
            tool=tool_name(),
            sink=sink,
            sign=sign,
            digest_list=digest_list,
            stack=followed,
        )
    if result.lost:
        found = loss_warnings(losses(opened, result.id, opened.manifest(result.id)))
        for warning in found:
            sink(Event(stage=Stage.CAPTURE, message=warning, warning=True))
        result = msgspec.structs.replace(result, warnings=result.warnings + found)
    after = msgspec.structs.replace(context, stage=HookStage.AFTER_CAPTURE, recovery_point=result.id)
    warnings = run_hooks(hooks, after, runner, sink)
    return msgspec.structs.replace(result, warnings=result.warnings + warnings)


def _survey(
    stack: contextlib.ExitStack, path: Path, disk_id: str, devices: tuple[BlockDevice, ...], wanted: int, ask: Asked
) -> DiskSurvey:
    source: FileSource = stack.enter_context(open_source(path))
    disk = disk_holding(devices, os.path.realpath(path))
    if disk is None and (sector_size := wanted or image_sector_size(source)) != source.sector_size:
        source = stack.enter_context(open_source(path, sector_size=sector_size))
    return survey_disk(source, disk_id, identity_of(disk) if disk else DiskIdentity(model="image file"), ask)


def _origin(survey: DiskSurvey) -> str:
    """Where a disk came from, for people: the image file, or the disk's own names."""
    identity = survey.disk.identity
    return survey.disk.path or f"{identity.model} {identity.serial}".strip() or "a disk without a name"


def _guard_source(source: Path, devices: tuple[BlockDevice, ...], repository: Path | None) -> None:
    """A disk that is in use gives a torn picture; a disk that holds the repository would be written."""
    node = os.path.realpath(source)
    disk = disk_holding(devices, node)
    if disk is None:
        return
    reasons = [
        f"{device.name} is mounted on {place}"
        for device, place in disk.mounts()
        if place != "[SWAP]" and not _mounted_read_only(place)
    ]
    reasons += [
        f"{device.name} is held by the kernel (a member of a mounted filesystem, or of a pool)"
        for device in disk.descendants()
        if not device.children and not any(device.mountpoints) and _is_held(device.name)
    ]
    if node not in (disk.name, disk.kname):
        reasons.append(f"{node} is a part of {disk.name}: liferaft captures whole disks")
    if repository is not None and disk_of_path(devices, repository.absolute()) is disk:
        reasons.append(f"{disk.name} carries the repository {repository}: the source is never written")
    if reasons:
        raise RefusedError(
            f"{source} cannot be captured: {reasons[0]}.",
            hint="Name a whole disk that is not in use; for the disk of a running system, boot the rescue medium.",
            reasons=tuple(reasons),
        )


def _is_held(node: str) -> bool:
    """Whether the kernel keeps a device for itself, which lsblk does not show.

    Of a btrfs on several devices only one is shown as mounted, of a ZFS pool none. Programs that look at a disk
    (mdadm) keep it for a moment: that is waited for.
    """
    for pause in (*_PATIENCE, None):
        try:
            os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            # Whatever else is wrong with it is said when it is opened to be read.
            if error.errno != errno.EBUSY:
                return False
        else:
            return False
        if pause is not None:
            time.sleep(pause)
    return True


def _mounted_read_only(place: str) -> bool:
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)
