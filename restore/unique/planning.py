"""The part of planning that makes a restored machine unique: new identities, or every reason against."""

from collections.abc import Sequence

import msgspec

from core.errors import DamagedError, DeviceError
from images.browse.point import ChunkCache, open_volume
from images.model.layout import FilesystemKind, Layout
from images.model.manifest import Manifest, Volume
from images.store.repository import Repository
from restore.fit.fitting import Fit
from restore.plan.steps import MakeUnique
from restore.unique.containers import renewed_containers
from restore.unique.filesystem import doubt
from restore.unique.renewal import Renewal, machine_renewal, reasons_against, renewed
from restore.unique.windows import holds_windows

NOTE = (
    "The restored machine gets identities of its own (disk, partitions, arrays, LUKS containers, volume groups, "
    "filesystems, machine-id, SSH host keys); "
    "its host name and its static addresses stay as they were captured."
)
BOOT_NOTE = (
    "The boot loader is left as it was captured: where its core names a filesystem by the old identity, it will not "
    "find it. Choose --boot bios or --boot uefi to have it made again."
)


def unique_reasons(repository: Repository, point: str, manifest: Manifest) -> list[str]:
    """What keeps the disks of a manifest, from getting identities of their own, a line each."""
    reasons = reasons_against(manifest.layout)
    kinds = {device.id: device.filesystem.kind for device in manifest.layout.devices() if device.filesystem}
    for volume in manifest.volumes:
        kind = kinds.get(volume.partition or volume.disk, FilesystemKind.UNKNOWN)
        why = _doubt(repository, point, manifest, volume, kind)
        if why:
            reasons.append(f"{volume.id} holds {kind}, which keeps its identity: {why}")
    ntfs = {device for device, kind in kinds.items() if kind is FilesystemKind.NTFS}
    return reasons + [
        f"{volume.id} holds Windows, which finds its disks by their identities, and its boot configuration cannot be "
        "rewritten yet: restore it as it is and run sysprep there"
        for volume in manifest.volumes
        if (volume.partition or volume.disk) in ntfs and holds_windows(repository, point, manifest, volume)
    ]


def _doubt(repository: Repository, point: str, manifest: Manifest, volume: Volume, kind: FilesystemKind) -> str:
    """What the stored filesystem itself has against another identity."""
    try:
        return doubt(open_volume(ChunkCache(repository), point, manifest, volume), kind)
    except (DamagedError, DeviceError) as error:
        return error.message.rstrip(".")


def make_unique(layout: Layout, fits: Sequence[Fit]) -> tuple[list[Fit], Layout, MakeUnique]:
    """Choose new identities.

    Returns:
        the fits with their new tables, in the order of the disks; the layout with the new containers; the step for the
        rest.
    """
    made: list[Fit] = []
    renewals: list[Renewal] = []
    for disk, fitted in zip(layout.disks, fits, strict=True):
        table, found = renewed(disk, fitted.table)
        made.append(msgspec.structs.replace(fitted, table=table))
        renewals += found
    containers, found = renewed_containers(layout)
    step = MakeUnique(disk=layout.disks[0].id, renewals=(*renewals, *found, machine_renewal()))
    return made, msgspec.structs.replace(layout, containers=containers), step
