"""Waiting: what the restored systems would wait for at their start and not get, told before anything is written.

Their fstab and crypttab are read from the stored volumes, and only where something of the machine does not come back.
"""

from collections.abc import Sequence

from core.errors import DamagedError, RefusedError, UnreachableError
from images.browse.point import ChunkCache, filesystem_volumes, open_volume
from images.browse.tree import Tree
from images.browse.view import parts_of, root_in, text_in
from images.model.filesystem import FilesystemKind
from images.model.layout import Disk
from images.model.manifest import Manifest, Volume
from restore.boot.awaited import Known, Unmet, known, unmet
from restore.planning.abilities import EXT
from restore.planning.matching import is_same_identity

#: What a Linux root lies on, as far as files can be read from it.
_ROOTS = EXT | {FilesystemKind.XFS, FilesystemKind.BTRFS}


def waiting_notes(
    cache: ChunkCache, point: str, whole: Manifest, restored: Manifest, disks: Sequence[Disk]
) -> list[str]:
    """A sentence for each line of a restored system's fstab and crypttab that waits for what is not restored.

    Args:
        point: the full id.
        whole: the manifest of the recovery point. restored: with the volumes and containers that are restored, alone.
        disks: those that are restored, as they will be.

    Raises:
        UnreachableError: the repository does not answer any more.
    """
    has = known(whole.layout, tuple(disks), restored.layout.containers)
    if not has.left and not _has_other_disks(whole):
        return []
    found = [
        (volume, one)
        for volume in filesystem_volumes(restored)
        if _may_be_root(restored, volume)
        for one in _unmet_on(cache, point, restored, volume, has)
    ]
    several = len({volume.id for volume, _ in found}) > 1
    texts = [one.text(f"the system on {volume.id}" if several else "the restored system") for volume, one in found]
    return [f"{text[0].upper()}{text[1:]}." for text in texts]


def _has_other_disks(whole: Manifest) -> bool:
    """Whether the machine had disks beside those that were captured. An image file was captured of no machine."""
    if whole.machine is None:
        return False
    captured = [
        any(is_same_identity(disk.identity, one.identity) for disk in whole.layout.disks) for one in whole.machine.disks
    ]
    return any(captured) and not all(captured)


def _may_be_root(manifest: Manifest, volume: Volume) -> bool:
    _, filesystem = parts_of(manifest, volume)
    return filesystem is not None and filesystem.kind in _ROOTS


def _unmet_on(cache: ChunkCache, point: str, manifest: Manifest, volume: Volume, has: Known) -> tuple[Unmet, ...]:
    """What a system on a volume waits for; nothing where there is no system, or none that can be read."""
    try:
        found = root_in(Tree(open_volume(cache, point, manifest, volume)))
        if found is None:
            return ()
        mount, fstab = found
        lines = unmet(fstab, text_in(mount, "/etc/crypttab") or "", has)
    except UnreachableError:
        raise
    except (DamagedError, RefusedError):
        return ()
    # Whether one called after its disk is found is known where the disk is: boot repair looks.
    return tuple(line for line in lines if not line.by_disk)
