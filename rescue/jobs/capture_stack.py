"""The capture job's way through containers: from the surveyed disks to the arrays, LUKS and LVM on them.

Only disks of this machine are followed: what lies in an image file would first have to become a device.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from core.events import Event, Sink, Stage
from core.process import Runner
from images.filesystems.detect import Asked
from images.model.manifest import VolumeRole
from images.probe import BlockDevice
from images.sources import FileSource, open_source
from images.stack.keys import Keys
from images.stack.opener import Opener
from images.stack.strangers import Strangers
from images.survey import DiskSurvey
from images.survey_stack import CONTAINERS, Follower, Place, StackSurvey


def follow_containers(
    stack: contextlib.ExitStack,
    surveys: Sequence[DiskSurvey],
    nodes: Sequence[str],
    devices: tuple[BlockDevice, ...],
    keys: Keys,
    runner: Runner,
    sink: Sink,
    ask: Asked,
) -> StackSurvey | None:
    """Follow what lies on the disks; None when there is nothing to follow.

    Args:
        stack: closes what was opened, after everything that reads it.
        nodes: of the disks, in their order. devices: lsblk's tree.

    Raises:
        RefusedError: an array or a group has members on other disks of the machine.
    """
    places = [
        Place(volume=volume, node=partition_node(node, survey, volume.partition))
        for survey, node in zip(surveys, nodes, strict=True)
        for volume in survey.volumes
        if volume.role is not VolumeRole.HEAD
    ]
    if not any(place.volume.used.filesystem.detail in CONTAINERS for place in places):
        return None
    sink(Event(stage=Stage.PROBE, message="Following arrays, encrypted containers and volume groups"))
    opener = stack.enter_context(Opener(runner, keys, sink))
    opened: dict[str, FileSource] = {}

    def source(node: str) -> FileSource:
        if node not in opened:
            opened[node] = stack.enter_context(open_source(Path(node)))
        return opened[node]

    strangers = Strangers(devices, nodes, open_source)
    return Follower(places, opener, source, strangers, ask).follow()


def say_not_followed(surveys: Sequence[DiskSurvey], sink: Sink) -> None:
    """Say what would be looked into if it were a disk of this machine."""
    found = [
        volume.id for survey in surveys for volume in survey.volumes if volume.used.filesystem.detail in CONTAINERS
    ]
    if found:
        text = (
            f"{', '.join(found)}: what lies in arrays, LUKS and LVM is looked into on disks only, not in image files; "
            "losetup --partscan makes a disk of a file"
        )
        sink(Event(stage=Stage.PROBE, message=text))


def kept_as_asked(survey: DiskSurvey) -> DiskSurvey:
    """The same disk, whose containers are kept whole for no other reason than that it was asked for."""
    reason = "it is kept as it lies, as --part-only asks"
    volumes = tuple(
        msgspec.structs.replace(volume, used=msgspec.structs.replace(volume.used, reason=reason, expected=True))
        if volume.used.filesystem.detail in CONTAINERS
        else volume
        for volume in survey.volumes
    )
    return msgspec.structs.replace(survey, volumes=volumes)


def partition_node(node: str, survey: DiskSurvey, partition: str) -> str:
    """The kernel's node of a partition: the disk's, a ``p`` where that ends with a digit, the number."""
    table = survey.disk.table
    if not partition or table is None:
        return node
    number = next(part.number for part in table.partitions if part.id == partition)
    return f"{node}{'p' if node[-1].isdigit() else ''}{number}"
