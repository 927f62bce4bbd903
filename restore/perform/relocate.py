"""Correcting what a filesystem says of its place and its sectors, on a target that is still held."""

from core.events import Stage
from images.model.layout import FilesystemKind
from restore.filesystems.held import HeldPartition
from restore.filesystems.ntfs_sectors import converted
from restore.filesystems.place import corrected_place
from restore.perform.work import Outcome, Work
from restore.plan.steps import RelocateFilesystem


def relocate(step: RelocateFilesystem, work: Work) -> Outcome:
    """Boot sectors name the partition's new place, after their volume was streamed and read back.

    Raises:
        DeviceError: what was written does not read back.
        DamagedError: the volume does not hold what the plan says.
    """
    work.say(Stage.LAYOUT, step.describe())
    sector_size = work.candidates[step.disk].sector_size
    partition = HeldPartition(work.targets[step.disk], step.offset, step.size, sector_size)
    new_lba = step.offset // sector_size
    # First into the sectors of the new disk: the place is then counted in those, in the main one and in its copy.
    if step.kind is FilesystemKind.NTFS and sector_size != step.old_sector_size:
        for patch in converted(partition, sector_size, step.old_lba, new_lba).patches:
            partition.write(patch)
    correction = corrected_place(partition, step.kind, step.old_lba, new_lba)
    for patch in correction.patches:
        partition.write(patch)
    return Outcome(warnings=tuple(f"partition {step.number}: {line}" for line in correction.warnings))
