"""Contents: what a fit is told about the stored volumes of one disk. Read from the recovery point, metadata alone.

Nothing is decided here: how much a content needs, whether it comes to other sectors, whether it can be made anew.
"""

from collections.abc import Sequence

from core.errors import DamagedError, RefusedError
from core.units import MIB, format_size, to_bytes
from images.browse.point import ChunkCache, VolumeSource, open_volume
from images.browse.tree import Tree
from images.model.layout import Disk, Filesystem, FilesystemKind, Partition
from images.model.manifest import CaptureMode, Manifest, Volume, VolumeRole
from images.model.stack import Luks
from images.stack.luks import read_header
from images.store.repository import Repository
from restore.filesystems.makers import remake_doubts
from restore.filesystems.sectors import conversion
from restore.filesystems.xfs_coarser import coarser_bytes
from restore.filesystems.xfs_make import block_size, log_size
from restore.filesystems.xfs_room import least_size, usable
from restore.filesystems.xfs_shared import shared_bytes
from restore.plan.outgrown import growth_reason
from restore.planning.abilities import FAT, REMAKEABLE, SHRINKABLE
from restore.planning.kernels import Kernels, kernels_on
from restore.planning.lessening import Lessening
from restore.planning.seat import Means, Seat
from restore.shrink.kinds import SHRINKERS

#: What a filesystem needs beyond the bytes that were allocated, when nobody knows better.
_SPARE_PERCENT = 10
_SPARE = 64 * MIB


def _by_allocation(needed: int, kind: FilesystemKind) -> int:
    return needed * (100 + _SPARE_PERCENT) // 100 + (0 if kind in FAT else _SPARE)


def _kind(partition: Partition) -> FilesystemKind:
    return partition.filesystem.kind if partition.filesystem else FilesystemKind.UNKNOWN


class Contents:
    """The volumes of one disk of a recovery point, asked when the fit asks.

    Args:
        point: the full id.
        cache: shared with the contents of other disks; None for one of its own.
    """

    def __init__(
        self, repository: Repository, point: str, manifest: Manifest, disk: Disk, cache: ChunkCache | None = None
    ) -> None:
        self._cache = cache or ChunkCache(repository)
        self._point = point
        self._manifest = manifest
        self._disk = disk
        # A disk without a table is one volume, and so is each device of the stack: asked for by its own id.
        others = {found.id for found in manifest.layout.disks} - {disk.id}
        self._volumes = {
            volume.partition or volume.disk: volume
            for volume in manifest.volumes
            if volume.disk not in others and volume.role is not VolumeRole.HEAD
        }
        self._kernels: dict[str, Kernels] = {}
        self._answers: dict[str, int | str] = {}
        #: What it, and the stack on it, can do with less room; and without room for one more kernel.
        self.lessening = Lessening(manifest.layout, self._least, self._against_header)
        self.bare_lessening = Lessening(manifest.layout, self._bare_least, self._against_header)

    def least(self, partition: Partition) -> int | str:
        """Bytes the content of a partition needs at least, or why it cannot be made smaller.

        With room for one more kernel where there are kernels: boot repair may have to make an initramfs there.
        """
        return self.lessening.least(partition.id, partition.filesystem)

    def bare_least(self, partition: Partition) -> int | str:
        """The same without room for a kernel."""
        return self.bare_lessening.least(partition.id, partition.filesystem)

    def lacking_for_kernel(self, device: str, filesystem: Filesystem | None, size: int) -> int:
        """Bytes that one more kernel takes and does not find when what lies on a device has ``size``; 0 where it does.

        Args:
            device: id of a partition or a device of the stack.
        """
        room = self._kernels_on(device, filesystem).room
        needed = self._bare_least(device, filesystem) if room else 0
        return room if not isinstance(needed, str) and size < needed + room else 0

    def holds_boot(self, partition: Partition) -> bool:
        """Whether a partition is a /boot, which keeps its size as long as there is another way."""
        return self._kernels_on(partition.id, partition.filesystem).boot

    def convert(self, partition: Partition, old: int, new: int) -> Means | str:
        """By what means a partition comes from sectors of ``old`` bytes to ``new``, or why it cannot."""
        volume = self._volumes.get(partition.id)
        if volume is None:
            return "nothing of it was captured"
        return conversion(self.open(volume), partition.filesystem, old, new)

    def against_remaking(self, seats: Sequence[Seat], sector_size: int) -> list[str]:
        """Why contents that were to be made anew cannot be, a line each. ``sector_size``: of the target."""
        reasons: list[str] = []
        for seat in seats:
            if seat.means is Means.REMAKE:
                found = self._against_remaking(seat, sector_size)
                reasons += [f"partition {seat.source.number} cannot be made anew: {reason}" for reason in found]
        return reasons

    def against_growing(self, seats: Sequence[Seat], sector_size: int) -> list[str]:
        """Why filesystems cannot become as large as their seats, a line each. ``sector_size``: of the target."""
        reasons: list[str] = []
        for seat in seats:
            volume = self._volumes.get(seat.source.id)
            if seat.grow and volume is not None:
                size = to_bytes(seat.partition.sector_count, sector_size)
                reason = growth_reason(self.open(volume), _kind(seat.source), size)
                reasons += [f"partition {seat.source.number}: {reason}"] if reason else []
        return reasons

    def open(self, volume: Volume) -> VolumeSource:
        """The stored content of a volume."""
        return open_volume(self._cache, self._point, self._manifest, volume)

    def _least(self, device: str, filesystem: Filesystem | None) -> int | str:
        found = self._bare_least(device, filesystem)
        return found if isinstance(found, str) else found + self._kernels_on(device, filesystem).room

    def _bare_least(self, device: str, filesystem: Filesystem | None) -> int | str:
        if device not in self._answers:
            self._answers[device] = self._least_alone(device, filesystem)
        return self._answers[device]

    def _kernels_on(self, device: str, filesystem: Filesystem | None) -> Kernels:
        """For what lies on a partition or a device of the stack."""
        if device not in self._kernels:
            volume = self._volumes.get(device)
            kind = filesystem.kind if filesystem else FilesystemKind.UNKNOWN
            self._kernels[device] = kernels_on(self.open(volume), kind) if volume is not None else Kernels()
        return self._kernels[device]

    def _least_alone(self, device: str, filesystem: Filesystem | None) -> int | str:
        """For what lies on a partition, a disk without a table or a device of the stack, and is no container."""
        volume = self._volumes.get(device)
        kind = filesystem.kind if filesystem else FilesystemKind.UNKNOWN
        if kind not in SHRINKABLE | REMAKEABLE:
            held = (filesystem.detail or kind.value) if filesystem else kind.value
            return f"this version cannot make {held} smaller"
        if volume is None:
            return "nothing of it was captured"
        if volume.mode is CaptureMode.WHOLE:
            return f"it was captured whole ({volume.reason})" if volume.reason else "it was captured whole"
        shrinker = SHRINKERS.get(kind)
        try:
            if shrinker is None and device == volume.disk:
                against = self._against_remaking_there(volume, kind)
                if against:
                    return against
            if shrinker is None:
                return self._least_anew(volume, kind)
            needs = shrinker.least(self.open(volume))
        except (DamagedError, RefusedError) as error:
            return error.message.rstrip(".")
        return needs.size if needs.shrinks else needs.reason

    def _against_header(self, luks: Luks) -> str:
        """Why a container keeps its size, by its header: cut below a size that stands there, it would not open."""
        volume = self._volumes.get(luks.device)
        if volume is None:
            return "its LUKS header was not captured"
        try:
            header = read_header(self.open(volume))
        except DamagedError as error:
            return error.message.rstrip(".")
        if header is None:
            return "its LUKS header is damaged"
        return "its LUKS header says how large it is" if header.size else ""

    def _against_remaking_there(self, volume: Volume, kind: FilesystemKind) -> str:
        """Why what lies on a device of the stack cannot be made anew; empty when it can."""
        if kind in FAT:
            return f"{kind} is made anew on partitions alone"
        return next(iter(remake_doubts(self.open(volume), kind)), "")

    def _least_anew(self, volume: Volume, kind: FilesystemKind) -> int:
        """Bytes of the least filesystem into which the files of a stored one are copied."""
        source = self.open(volume)
        copied = self._copied(volume, kind, source.sector_size)
        if kind is not FilesystemKind.XFS:
            return _by_allocation(copied, kind)
        # What was allocated has the log in it: that is the margin for files that lie less closely in a fresh one.
        enough = _by_allocation(copied + log_size(source), kind)
        return max(enough, least_size(copied, block_size(source, source.sector_size)))

    def _copied(self, volume: Volume, kind: FilesystemKind, sector_size: int) -> int:
        """Bytes that a copy of the files takes, without what is new about the filesystem around them.

        Args:
            sector_size: of what the copy lies on.
        """
        if kind is not FilesystemKind.XFS:
            return volume.allocated
        source = self.open(volume)
        more = shared_bytes(source) + coarser_bytes(source, block_size(source, sector_size))
        return max(volume.allocated - log_size(source), 0) + more

    def _against_remaking(self, seat: Seat, sector_size: int) -> Sequence[str]:
        volume = self._volumes.get(seat.source.id)
        kind = _kind(seat.source)
        if volume is None:
            return ("nothing of it was captured",)
        source = self.open(volume)
        try:
            if kind in FAT:
                # A library of its own, which few plans need.
                from images.browse.fat import FatFilesystem
                from restore.filesystems.fat_copy import FatCopy

                filesystem = Tree(source).filesystem
                if not isinstance(filesystem, FatFilesystem):
                    return (f"it holds {filesystem.name}, not {kind}",)
                size = seat.partition.sector_count * sector_size
                FatCopy(source, filesystem, size, sector_size, old_lba=0, new_lba=0)
                return ()
            doubts = list(remake_doubts(source, kind))
            needed = 0 if doubts else self._copied(volume, kind, sector_size)
            room = to_bytes(seat.partition.sector_count, sector_size)
            if kind is FilesystemKind.XFS and needed:
                room = usable(room, block_size(source, sector_size))
            if needed > room:
                doubts.append(
                    f"a copy of its files needs {needed} bytes ({format_size(needed)}), and there are {room} "
                    f"({format_size(room)}): what files share is no longer shared, blocks may be larger, and the "
                    f"filesystem itself takes room"
                )
            return doubts
        except (DamagedError, RefusedError) as error:
            return (error.message.rstrip("."),)
