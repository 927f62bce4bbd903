"""The check job: is a repository sound, and can it be repaired?"""

import contextlib
from collections.abc import Iterator

import msgspec

from core.errors import DeviceError, RefusedError, UsageError
from core.events import Event, Sink, Stage
from images.store.access import Access
from images.store.backend import Reader, Writer
from images.store.check import Depth, check, check_and_repair
from images.store.connect import open_repository
from images.store.findings import CheckResult
from images.store.locks import LockedError, LockKind, locked
from images.store.writer import writable


def check_repository(
    location: str, depth: Depth, *, repair: bool, sink: Sink, access: Access | None = None
) -> CheckResult:
    """Look at a repository, and repair it if asked.

    Raises:
        LockedError: somebody works in it who must not be disturbed, or must not disturb.
        RefusedError: it is to be repaired and cannot be written. UsageError, UnreachableError, DamagedError: it
            cannot be opened at all.
    """
    repository = open_repository(location, access)
    if not repair:
        with _shared_lock(repository.backend, sink) as note:
            result = check(repository, depth, sink=sink)
        return msgspec.structs.replace(result, notes=(*result.notes, *note))
    if repository.access.trusted:
        raise UsageError(
            "--repair and --require-signature do not go together: what is repaired belongs to every recovery point.",
            hint="Check with --require-signature, repair without.",
        )
    with locked(writable(repository.backend), LockKind.EXCLUSIVE, "check --repair", sink=sink) as lock:
        return check_and_repair(repository, depth, lock, sink=sink)


@contextlib.contextmanager
def _shared_lock(backend: Reader, sink: Sink) -> Iterator[tuple[str, ...]]:
    """Keep prune away while we look, where that is possible; gives what must be said when it is not."""
    with contextlib.ExitStack() as stack:
        notes: tuple[str, ...] = ()
        reason = "it is read-only"
        if isinstance(backend, Writer):
            try:
                stack.enter_context(locked(backend, LockKind.SHARED, "check", sink=sink))
                reason = ""
            except LockedError:
                raise
            except (RefusedError, DeviceError) as error:
                reason = error.message.rstrip(".")
        if reason:
            notes = (f"Checked without a lock ({reason}): if it was pruned meanwhile, check again.",)
            sink(Event(stage=Stage.CHECK, message=notes[0]))
        yield notes
