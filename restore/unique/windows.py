"""Whether a stored volume holds an installed Windows, whose boot configuration and drive letters name identities."""

from core.errors import DamagedError, RefusedError, UsageError
from images.browse.point import ChunkCache, open_volume
from images.browse.tree import Found, Tree
from images.model.manifest import Manifest, Volume
from images.store.repository import Repository

#: The hive with MountedDevices; without it there is no Windows to boot.
_HIVE = ("Windows", "System32", "config", "SYSTEM")


def holds_windows(repository: Repository, point: str, manifest: Manifest, volume: Volume) -> bool:
    """Look for Windows' system hive; a volume that cannot be read counts as one that has it.

    Args:
        point: the recovery point's full id.
    """
    try:
        tree = Tree(open_volume(ChunkCache(repository), point, manifest, volume))
        here: Found | None = tree.root
        for name in _HIVE:
            if here is None:
                return False
            here = tree.child(here, name)
        return here is not None
    except (DamagedError, RefusedError, UsageError):
        return True
