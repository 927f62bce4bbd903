"""Candidates: the disks and files that somebody names as targets, found and guarded.

A target is a disk of this machine, found by its identity, or a plain file or loop device, found by its path. The guards
of DESIGN §3.3 are here: what is mounted, held, carries the repository or the rescue medium has obstacles, and is never
opened for writing (``targets.py``).
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from core.errors import RefusedError, UsageError
from core.process import Runner
from images.model.layout import DiskIdentity
from images.model.machine import MachineDisk, Occupant
from images.probe import BlockDevice, block_devices, disk_holding, disk_of_path, machine_disk, medium_obstacle
from images.sources import FileSource, open_source
from images.store.backend import LocalBackend
from images.store.connect import connect
from images.survey import image_sector_size
from restore.plan.plan import TargetDisk
from restore.target.backing import backing_inode, inode_of, loops_over
from restore.target.medium import carries_medium
from restore.target.occupants import contents_of, occupants_of


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A disk or file that a user named as a target, and what speaks against it. ``file`` as in TargetDisk.

    ``occupants``, ``removable`` as in MachineDisk. ``inode``: of the file behind it, the same under every name that
    the file has; empty for a disk. ``plain``: a plain file; its sectors have the size that whoever uses it asks for.
    """

    node: str
    file: str
    identity: DiskIdentity
    size: int
    sector_size: int
    contents: tuple[str, ...]
    obstacles: tuple[str, ...]
    occupants: tuple[Occupant, ...] = ()
    removable: bool = False
    inode: str = ""
    plain: bool = False


def name_target(path: Path, repository: str, runner: Runner) -> Candidate:
    """Look at a target the user named by a path.

    Args:
        repository: where the chunks come from; its disk is no target. Empty: there is none.

    Raises:
        UsageError: there is no such disk or file, or it is empty.
    """
    devices = block_devices(runner)
    if not (path.exists() and stat.S_ISBLK(path.stat().st_mode)):
        with open_source(path) as whole:
            sector_size = image_sector_size(whole)
        with open_source(path, sector_size=sector_size) as source:
            file = _file_candidate(path.resolve(), source, _local_folder(repository), devices)
            return msgspec.structs.replace(file, contents=contents_of(source), occupants=occupants_of(source))
    node = os.path.realpath(path)
    disk = disk_holding(devices, node)
    if disk is None:
        raise UsageError(f"{path} is not a disk of this machine.", hint="liferaft probe lists them.")
    found = machine_disk(disk)
    obstacles = list(found.obstacles)
    if disk.name != node and disk.kname != node:
        obstacles.append(f"{node} is a part of {disk.name}: a target is a whole disk")
    return disk_candidate(
        msgspec.structs.replace(found, obstacles=tuple(obstacles)), repository, devices, loop=disk.type == "loop"
    )


def disk_candidate(
    disk: MachineDisk, repository: str, devices: tuple[BlockDevice, ...], *, loop: bool = False
) -> Candidate:
    """A disk of the probe as a candidate. ``devices``: of this machine; none for a disk of a recorded one."""
    obstacles = list(disk.obstacles)
    if devices and carries_medium(disk.node):
        obstacles.append(medium_obstacle(disk.node))
    folder = _local_folder(repository)
    if folder is not None:
        carrier = disk_of_path(devices, folder)
        if carrier is not None and carrier.name == disk.node:
            obstacles.append(f"{disk.node} carries the repository {folder}")
    return Candidate(
        node=disk.node,
        file=disk.node if loop else "",
        identity=disk.identity,
        size=disk.size,
        sector_size=disk.sector_size,
        contents=disk.contents,
        obstacles=tuple(dict.fromkeys(obstacles)),
        occupants=disk.occupants,
        removable=disk.removable,
        inode=backing_inode(disk.node) if loop else "",
    )


def find_target(target: TargetDisk, repository: str, runner: Runner) -> Candidate:
    """The disk a plan means, found by identity in this machine as it is now.

    Raises:
        RefusedError: it is not there, or several disks could be meant.
    """
    if target.file:
        found = name_target(Path(target.file), repository, runner)
        return msgspec.structs.replace(found, sector_size=target.sector_size) if found.plain else found
    devices = block_devices(runner)
    disks = [machine_disk(device) for device in devices if device.type == "disk"]
    return disk_candidate(meant_disk(target, disks), repository, devices)


def meant_disk(target: TargetDisk, disks: Sequence[MachineDisk]) -> MachineDisk:
    """The disk of a machine that a plan means, found by identity.

    Raises:
        RefusedError: it is not there, or several disks could be meant.
    """
    matches = [disk for disk in disks if disk.size == target.size and _same(disk.identity, target.identity)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise RefusedError(
            f"The plan's target is not in this machine: {target.shown}, {target.size} bytes.",
            hint="Make a new plan for a disk that is here: liferaft probe lists them.",
        )
    nodes = ", ".join(disk.node for disk in matches)
    raise RefusedError(
        f"Several disks could be the plan's target ({target.shown}): {nodes}.",
        hint="Detach the others, or make a new plan.",
    )


def _same(found: DiskIdentity, wanted: DiskIdentity) -> bool:
    """WWN decides, then the serial, then the model; the transport may change with the cable."""
    if found.wwn and wanted.wwn:
        return found.wwn == wanted.wwn
    return (found.serial, found.model) == (wanted.serial, wanted.model)


def _local_folder(repository: str) -> Path | None:
    if not repository:
        return None
    backend = connect(repository)
    return backend.folder if isinstance(backend, LocalBackend) else None


def _file_candidate(path: Path, source: FileSource, folder: Path | None, devices: tuple[BlockDevice, ...]) -> Candidate:
    obstacles = []
    if folder is not None and folder.resolve() in path.parents:
        obstacles.append(f"{path} lies in the repository {folder}")
    obstacles += [f"{path} is attached as {loop}" for loop in loops_over(path, devices)]
    if not os.access(path, os.W_OK):
        obstacles.append(f"{path} is not writable")
    return Candidate(
        node=str(path),
        file=str(path),
        identity=DiskIdentity(),
        size=source.size,
        sector_size=source.sector_size,
        contents=(),
        obstacles=tuple(obstacles),
        inode=inode_of(path),
        plain=True,
    )
