"""The prune job: give the room back that no recovery point needs. Also rebuilding indexes, and removing locks."""

from core.errors import RefusedError
from core.events import Sink
from images.store.access import Access
from images.store.connect import connect, open_repository
from images.store.document import read_document
from images.store.locks import HeldLock, LockKind, locked, unlock
from images.store.prune import PruneResult, plan_only, prune
from images.store.rebuild import RebuildResult, rebuild_indexes
from images.store.usage import Limit
from images.store.writer import writable


def prune_repository(
    location: str, limit: Limit, *, dry_run: bool, sink: Sink, access: Access | None = None
) -> PruneResult:
    """Prune, or say what it would do.

    Raises:
        LockedError: somebody works in it. RefusedError: what is needed cannot be told; nothing was removed.
    """
    repository = open_repository(location, access)
    backend = writable(repository.backend)
    if dry_run:
        with locked(backend, LockKind.SHARED, "prune --dry-run", sink=sink):
            return plan_only(repository, limit, sink=sink)
    with locked(backend, LockKind.EXCLUSIVE, "prune", sink=sink) as lock:
        return prune(repository, limit, lock, sink=sink)


def rebuild_repository(location: str, *, prove: bool, sink: Sink, access: Access | None = None) -> RebuildResult:
    """Make all indexes anew from the packs.

    Raises:
        LockedError: somebody works in it.
    """
    repository = open_repository(location, access)
    with locked(writable(repository.backend), LockKind.EXCLUSIVE, "rebuild-index", sink=sink) as lock:
        return rebuild_indexes(repository, lock, prove=prove, sink=sink)


def unlock_repository(location: str, *, everything: bool) -> tuple[tuple[HeldLock, ...], tuple[HeldLock, ...]]:
    """Remove locks: those of processes that are certainly gone, or all. Needs no passphrase.

    Returns:
        removed, left.
    """
    backend = connect(location)
    read_document(backend)
    if not backend.lists:
        raise RefusedError(f"{backend.location} is read-only: locks there are removed where it can be written.")
    return unlock(writable(backend), everything=everything)
