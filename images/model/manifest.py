"""The manifest: one recovery point (docs/image-format.md §7)."""

from enum import StrEnum

import msgspec

from images.model.extents import Extent
from images.model.layout import Layout
from images.model.machine import Machine

MANIFEST_VERSION = 1


class VolumeRole(StrEnum):
    """Which part of a disk a volume is."""

    HEAD = "head"
    PARTITION = "partition"
    DISK = "disk"


class CaptureMode(StrEnum):
    """Whether the allocation map was believed."""

    USED = "used"
    WHOLE = "whole"


class Volume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One captured volume. Offsets and sizes in bytes on the source disk; ``root`` is hex, None for nothing.

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
    """Everything about one recovery point. ``created`` is UTC, ISO 8601."""

    version: int = MANIFEST_VERSION
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
