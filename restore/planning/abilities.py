"""Abilities: what this version can do to each kind of filesystem. Facts that fit reads; nothing is done here.

A kind is in a set only when the performer of that step carries it out; it is added in the same change.
"""

from images.model.filesystem import MemberKind
from images.model.layout import FilesystemKind

#: Kinds that share their tools.
EXT = frozenset({FilesystemKind.EXT2, FilesystemKind.EXT3, FilesystemKind.EXT4})
FAT = frozenset({FilesystemKind.FAT12, FilesystemKind.FAT16, FilesystemKind.FAT32})

#: Grown to the size of their partition by the step GrowFilesystem.
GROWABLE = EXT | {FilesystemKind.NTFS, FilesystemKind.XFS, FilesystemKind.BTRFS, FilesystemKind.SWAP}

#: Made smaller on an overlay over the stored image by the step ShrinkVolume.
SHRINKABLE = EXT | {FilesystemKind.NTFS, FilesystemKind.BTRFS}

#: Made anew with the same identity, files copied, by the steps RemakeFat and RemakeVolume.
REMAKEABLE = FAT | {FilesystemKind.XFS}

#: Content that does not depend on where its partition lies: every address in it counts from the partition's start.
#: The Linux drivers of these see only the block device of the partition, never its place on the disk; for HFS+ see
#: Apple TN1150 "Volume Header", for APFS the "Apple File System Reference", "Container Superblock".
MOVABLE = EXT | {
    FilesystemKind.SWAP,
    FilesystemKind.XFS,
    FilesystemKind.BTRFS,
    FilesystemKind.F2FS,
    FilesystemKind.JFS,
    FilesystemKind.NILFS2,
    FilesystemKind.REISERFS,
    FilesystemKind.REISER4,
    FilesystemKind.MINIX,
    FilesystemKind.HFSPLUS,
    FilesystemKind.APFS,
}

#: Containers of which the same is true.
MOVABLE_CONTAINERS = frozenset({MemberKind.LUKS, MemberKind.LVM, MemberKind.MD})

#: Whose boot sector tells the place of the partition, and is corrected by the step RelocateFilesystem when it moves.
RELOCATABLE = FAT | {FilesystemKind.NTFS, FilesystemKind.EXFAT}
