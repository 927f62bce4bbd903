"""What lies in a volume and which of its extents hold data: the one question the rest of liferaft asks.

Every reader is asked. An answer counts only when it is the only one, when the volume is no container's
member, and when libblkid, where it can look, does not contradict.
"""

from collections.abc import Callable

from images.filesystems.containers import container_name
from images.filesystems.exfat import read_exfat
from images.filesystems.ext import read_ext
from images.filesystems.fat import read_fat
from images.filesystems.ntfs import read_ntfs
from images.filesystems.swap import read_swap
from images.filesystems.used import UsedMap, whole
from images.filesystems.xfs import read_xfs
from images.model.layout import Filesystem, FilesystemKind
from images.signatures import Signature, probe
from images.sources import BlockSource, FileSource, WindowSource

_READERS = (read_ext, read_fat, read_exfat, read_ntfs, read_swap, read_xfs)

#: libblkid's names for what each reader reads.
_NAMES = {
    FilesystemKind.EXT2: frozenset({"ext2", "ext3", "ext4"}),
    FilesystemKind.EXT3: frozenset({"ext2", "ext3", "ext4"}),
    FilesystemKind.EXT4: frozenset({"ext2", "ext3", "ext4", "ext4dev"}),
    FilesystemKind.FAT12: frozenset({"vfat"}),
    FilesystemKind.FAT16: frozenset({"vfat"}),
    FilesystemKind.FAT32: frozenset({"vfat"}),
    FilesystemKind.EXFAT: frozenset({"exfat"}),
    FilesystemKind.NTFS: frozenset({"ntfs"}),
    FilesystemKind.SWAP: frozenset({"swap", "swsuspend", "swap_old"}),
    FilesystemKind.XFS: frozenset({"xfs"}),
    FilesystemKind.UNKNOWN: frozenset({"jbd"}),
}


#: Answers for a volume that only libblkid has a name for; None when it knows nothing of it either.
Asked = Callable[[BlockSource, Signature], UsedMap | None]


def read_used(source: BlockSource, ask: Asked | None = None) -> UsedMap:
    """What the volume is and which extents to keep; the whole of it, with the reason, whenever in doubt.

    libblkid is asked for a name when the source is a file, a device or a part of one.

    Args:
        ask: who else may know: :meth:`images.filesystems.partclone.Partclone.read`. None to ask nobody.

    Raises:
        DeviceError: the start of the source cannot be read.
    """
    signature = _probe(source)
    container = container_name(source)
    if container:
        agreed = signature is not None and signature.name == container
        return _unread(source, signature if signature and agreed else Signature(), container.value)
    answers = [answer for reader in _READERS if (answer := reader(source)) is not None]
    if len(answers) > 1:
        names = " and ".join(answer.filesystem.detail for answer in answers)
        unknown = Filesystem(kind=FilesystemKind.UNKNOWN)
        return whole(unknown, source.size, f"it looks like {names} at once")
    if not answers:
        asked = ask(source, signature) if ask is not None and signature is not None else None
        if asked is not None:
            return asked
        return _unread(source, signature or Signature(), signature.name if signature else "")
    answer = answers[0]
    if signature is None or signature.name in _NAMES[answer.filesystem.kind]:
        return answer
    if signature.ambiguous:
        reason = f"libblkid finds signatures beside that of {answer.filesystem.detail}"
        return whole(answer.filesystem, source.size, reason)
    return _unread(source, signature, signature.name)


def _unread(source: BlockSource, signature: Signature, name: str) -> UsedMap:
    """The answer for a volume that no reader may speak for."""
    filesystem = Filesystem(kind=FilesystemKind.UNKNOWN, detail=name, uuid=signature.uuid, label=signature.label)
    if name:
        return whole(filesystem, source.size, f"liferaft has no reader for {name}")
    return whole(filesystem, source.size, "it holds nothing liferaft recognises")


def _probe(source: BlockSource) -> Signature | None:
    """What libblkid says, when it can look at the source."""
    offset, inner = 0, source
    while isinstance(inner, WindowSource):
        offset, inner = offset + inner.offset, inner.inner
    return probe(inner.descriptor, offset, source.size) if isinstance(inner, FileSource) else None
