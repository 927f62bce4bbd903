"""Lessening: how much less room a stack can do with, and who in a volume group gives up what is missing.

The counterpart of ``growing.py``. A filesystem on a logical volume or in a LUKS container is made smaller as one on a
partition is; the volume, the group and the container follow. Pure: a layout, and what each content needs, in; bytes
out. The steps are ``stack_steps.py``'s.
"""

from collections.abc import Callable, Mapping

from core.errors import RefusedError
from core.units import align_down, align_up
from images.model.filesystem import Filesystem
from images.model.layout import Layout
from images.model.stack import Array, Container, LogicalVolume, Luks, VolumeGroup
from images.stack.lvm_text import parse_group

#: Room behind the data of a LUKS container that nobody uses: its tools align the end to less than that.
_ROUNDING = 1 << 20


class Lessening:
    """What the devices of a layout can be cut to.

    Args:
        content: bytes that what lies on a device needs, or why that cannot be made smaller; by the device's id and its
            filesystem.
        header: why the header of a LUKS container keeps its size; empty where its data end with its device.

    Attributes:
        firm: by device, why it keeps its size; of those that were asked about.
    """

    def __init__(
        self,
        layout: Layout,
        content: Callable[[str, Filesystem | None], int | str],
        header: Callable[[Luks], str],
    ) -> None:
        self._layout = layout
        self._content = content
        self._header = header
        self._sizes = {device.id: device.size for device in layout.devices()}
        self._answers: dict[str, int | str] = {}
        self.firm: dict[str, str] = {}

    def least(self, device: str, filesystem: Filesystem | None = None) -> int | str:
        """Bytes that a device must have at least for what is on it, or why it cannot be smaller.

        Args:
            filesystem: what lies on it, when that is no container.
        """
        if device not in self._answers:
            container = self._layout.container_on(device)
            found = self._through(container) if container else self._content(device, filesystem)
            self._answers[device] = found
            if isinstance(found, str):
                self.firm[device] = found
        return self._answers[device]

    def firm_above(self) -> dict[str, str]:
        """Devices of the stack that keep their size, with the reason; those below them are the fit's to tell."""
        made = {device.id for device in self._layout.devices() if device.container}
        return {device: reason for device, reason in self.firm.items() if device in made}

    def cut(self, group: VolumeGroup, room: int) -> Mapping[str, int]:
        """The sizes of a group's volumes, by their ids, when its one physical volume has ``room`` bytes.

        Volumes give in proportion to what they can spare; with room enough all keep theirs.

        Raises:
            RefusedError: it is less than ``least`` said.
        """
        extent = group.extent_size
        offset = group.members[0].data_offset
        sizes = {volume.id: volume.size for volume in group.volumes}
        missing = sum(sizes.values()) - align_down(max(room - offset, 0), extent)
        if missing <= 0:
            return sizes
        spare = {volume.id: volume.size - self._least_volume(group, volume) for volume in group.volumes}
        total = sum(spare.values())
        if missing > total:
            raise RefusedError(
                f"The volumes of group {group.name} on {group.members[0].device} need {missing - total} bytes more "
                f"than the {room} that are there."
            )
        left = missing
        for volume in sorted(spare, key=lambda name: spare[name]):
            given = min(spare[volume], left, align_up(missing * spare[volume] // total, extent))
            sizes[volume] -= given
            left -= given
        # Rounded up above: nothing can be left, whatever the shares.
        assert left == 0
        return sizes

    def _through(self, container: Container) -> int | str:
        if isinstance(container, Array):
            return "it is a member of an array, which keeps its size"
        if isinstance(container, Luks):
            return self._least_luks(container)
        return self._least_group(container)

    def _least_luks(self, container: Luks) -> int | str:
        behind = self._sizes[container.device] - container.payload_offset - container.size
        if behind >= _ROUNDING:
            return "its LUKS header says how large it is"
        # A size in the header may be so close to the device's that the bytes behind tell nothing.
        against = self._header(container)
        if against:
            return against
        inside = self.least(container.id, container.filesystem)
        if isinstance(inside, str):
            return inside
        return container.payload_offset + align_up(min(inside, container.size), max(container.sector_size, 4096))

    def _least_group(self, group: VolumeGroup) -> int | str:
        reason = _against_cutting(group)
        if reason:
            return f"the volume group {group.name} on it {reason}"
        needed = sum(self._least_volume(group, volume) for volume in group.volumes)
        return group.members[0].data_offset + needed

    def _least_volume(self, group: VolumeGroup, volume: LogicalVolume) -> int:
        """In whole extents; all that it has when it cannot be made smaller."""
        found = self.least(volume.id, volume.filesystem)
        return volume.size if isinstance(found, str) else min(align_up(max(found, 1), group.extent_size), volume.size)


def _against_cutting(group: VolumeGroup) -> str:
    """Why a group cannot be laid out anew on less room; empty when it can."""
    if len(group.members) != 1:
        return f"lies on {len(group.members)} physical volumes"
    others = {kind for volume in group.volumes for kind in volume.segments} - {"linear"}
    if others:
        return f"has volumes of type {', '.join(sorted(others))}"
    seen = {volume.name for volume in group.volumes}
    hidden = sorted(found.name for found in parse_group(group.backup).logical if found.name not in seen)
    return f"has the hidden volume {hidden[0]}" if hidden else ""
