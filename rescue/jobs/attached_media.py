"""The rescue media that are attached to this machine, the running one among them: what another stick can be made from.

A medium is known by its volume label; what it is, and whether it is whole, is found out when it is to be written.
"""

from collections.abc import Iterator

import msgspec

from core.process import Runner
from core.units import format_size
from images.probe import MEDIUM_LABEL, BlockDevice, block_devices
from restore.target.medium import carries_medium

#: Where live-boot mounts the medium that it runs from.
_RUNNING = "/run/live/medium"


class AttachedMedium(msgspec.Struct, frozen=True, kw_only=True):
    """A CD, a stick, or an ISO file that is attached as a device.

    Attributes:
        node: of the whole device. name: for people.
    """

    node: str
    name: str


def attached_media(runner: Runner) -> tuple[AttachedMedium, ...]:
    """All that are there now, the running one first. A system that was copied to RAM, or came over the network, runs
    from none."""
    found = [(disk, _is_running(disk)) for disk in block_devices(runner) if _is_medium(disk)]
    found.sort(key=lambda one: not one[1])
    return tuple(
        AttachedMedium(node=disk.name, name=" ".join(_words(disk, running=running))) for disk, running in found
    )


def _is_medium(disk: BlockDevice) -> bool:
    if disk.size <= 0 or disk.type not in ("disk", "rom", "loop"):
        return False
    # The kernel calls an image that can be read a loop device whatever is in it: lsblk knows its label, too.
    noted = any(
        device.fstype == "iso9660" and (device.label or "").startswith(MEDIUM_LABEL) for device in disk.descendants()
    )
    return noted or carries_medium(disk.name)


def _is_running(disk: BlockDevice) -> bool:
    return any(place == _RUNNING for _, place in disk.mounts())


def _words(disk: BlockDevice, *, running: bool) -> Iterator[str]:
    yield "This rescue medium," if running else "The rescue medium in"
    model = (disk.model or "").strip()
    yield disk.name.removeprefix("/dev/")
    if model:
        yield f"({model}, {format_size(disk.size)})"
