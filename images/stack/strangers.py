"""Strangers: members of an array or a group on disks that are not captured with it. Found, named, and refused."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn, TypeVar

from core.errors import DeviceError, RefusedError, UsageError
from images.model.filesystem import MemberKind
from images.probe import BlockDevice, disk_holding
from images.sources import BlockSource
from images.stack.lvm_label import read_label
from images.stack.md import read_superblock

T = TypeVar("T")


class Strangers:
    """The devices of this machine that are not captured.

    Args:
        devices: lsblk's tree. captured: nodes of the disks that are captured.
        open_node: opens a device for reading.
    """

    def __init__(
        self,
        devices: tuple[BlockDevice, ...],
        captured: Collection[str],
        open_node: Callable[[Path], AbstractContextManager[BlockSource]],
    ) -> None:
        self._devices = devices
        self._captured = captured
        self._open_node = open_node

    def refuse_array(self, uuid: str, members: Collection[str]) -> None:
        """Raise RefusedError when another disk has a member of the array."""
        for device in self._others(MemberKind.MD):
            says = self._ask(device, read_superblock)
            if says is not None and says.uuid == uuid:
                self._refuse(f"the array {says.name or uuid}", members, device)

    def refuse_group(self, name: str, lacking: Collection[str], members: Collection[str]) -> None:
        """Raise RefusedError when another disk has one of the physical volumes that the group lacks, by their UUIDs."""
        for device in self._others(MemberKind.LVM):
            label = self._ask(device, read_label)
            if label is not None and label.uuid in lacking:
                self._refuse(f"the volume group {name}", members, device)

    def _others(self, kind: MemberKind) -> list[BlockDevice]:
        disks = [disk for disk in self._devices if disk.name not in self._captured]
        found = (device for disk in disks for device in disk.descendants() if device.fstype == kind)
        return list({device.name: device for device in found}.values())

    def _ask(self, device: BlockDevice, reader: Callable[[BlockSource], T | None]) -> T | None:
        try:
            with self._open_node(Path(device.name)) as source:
                return reader(source)
        except (DeviceError, UsageError):
            # What cannot be read cannot be said to belong to it: then the member is missing, and that is said.
            return None

    def _refuse(self, what: str, members: Collection[str], device: BlockDevice) -> NoReturn:
        other = disk_holding(self._devices, device.name)
        disks = [disk_holding(self._devices, node) for node in members]
        names = sorted({disk.name for disk in (*disks, other) if disk is not None})
        where = f"{', '.join(sorted(members))} and on {device.name}"
        raise RefusedError(
            f"{what[:1].upper()}{what[1:]} lies on {where}: these disks belong together.",
            hint=f"Name them all: liferaft capture {' '.join(names)} …; --part-only keeps the parts as they lie.",
        )
