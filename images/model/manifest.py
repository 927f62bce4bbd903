"""The manifest: one recovery point (docs/image-format.md §7)."""

from enum import StrEnum

import msgspec

from images.model.extents import Extent
from images.model.layout import Layout
from images.model.machine import Machine

#: The newest that is read. One without containers is written as version 1, which every liferaft reads.
MANIFEST_VERSION = 2
PLAIN_VERSION = 1


class VolumeRole(StrEnum):
    """Which part of a disk a volume is; ``disk`` also says a whole array, opened LUKS or logical volume."""

    HEAD = "head"
    PARTITION = "partition"
    DISK = "disk"


class CaptureMode(StrEnum):
    """Whether the allocation map was believed."""

    USED = "used"
    WHOLE = "whole"


class Volume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One captured volume. Offsets and sizes in bytes on the source disk; ``root`` is hex, None for nothing.

    ``disk`` is the id of the disk, or of another device of the layout. Of a device that a container lies on, only the
    beginning is a volume: the header of LUKS with its key slots, or what stands before the container's own marks.
    ``lost``: bytes of the volume that could not be read from the source and are zero here; merged and sorted.
    """

    id: str
    disk: str
    role: VolumeRole
    partition: str = ""
    offset: int
    size: int
    root: str | None
    height: int
    allocated: int
    mode: CaptureMode
    reason: str = ""
    lost: tuple[Extent, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one recovery point. ``created`` is UTC, ISO 8601. With containers ``version`` is 2."""

    version: int = PLAIN_VERSION
    tool: str
    name: str
    created: str
    origin: str
    machine: Machine | None
    layout: Layout
    volumes: tuple[Volume, ...]

    def volume(self, volume_id: str) -> Volume:
        """The volume with that id; KeyError when there is none."""
        for volume in self.volumes:
            if volume.id == volume_id:
                return volume
        raise KeyError(volume_id)
