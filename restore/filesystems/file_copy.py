"""The files of a stored volume into a fresh filesystem that is mounted: everything a file is, or the work fails.

Owners, modes, times, extended attributes (access lists, capabilities, labels), hard links, holes and devices are kept.
What a filesystem keeps beside its files (quota limits, flags of chattr, sharing of extents between files) is not.
"""

import os
from pathlib import Path

from core.errors import DamagedError, LiferaftError
from core.events import Meter
from images.browse.extract import Extraction
from images.browse.folder import FolderReceiver
from images.browse.tree import Tree


def copy_files(tree: Tree, folder: Path, meter: Meter, chunk_size: int) -> tuple[str, ...]:
    """Copy all files of a volume.

    Args:
        folder: the top folder of the fresh filesystem; it gets owner, mode, times and attributes of the old one.
        chunk_size: bytes of a chunk of the repository.

    Returns:
        what could not be kept and is no fault: a line each.

    Raises:
        DamagedError: a file cannot be read out of the recovery point.
        DeviceError: the filesystem is full, or failed.
        LiferaftError: something was refused by the fresh filesystem.
    """
    receiver = FolderReceiver(folder, overwrite=False)
    try:
        extraction = Extraction(tree, receiver, meter, chunk_size)
        extraction.send_inside(tree.root)
        _dress_root(tree, folder)
    finally:
        receiver.close()
    broken = [*extraction.result.damaged, *extraction.result.unreadable]
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise DamagedError(f"The files of {tree.source.name} cannot be copied: {broken[0]}{more}")
    refused = receiver.missing.surprising
    if refused:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise LiferaftError(f"The copy of {tree.source.name} would lack something: {refused[0]}{more}")
    return tuple(f"{count} times: {what}" for what, count in sorted(receiver.missing.expected.items()))


def _dress_root(tree: Tree, folder: Path) -> None:
    root = tree.root
    os.chown(folder, root.entry.uid, root.entry.gid)
    for attribute in tree.attributes(root):
        os.setxattr(folder, os.fsencode(attribute.name), attribute.value)
    folder.chmod(root.entry.mode)
    os.utime(folder, ns=(root.entry.atime, root.entry.mtime))
