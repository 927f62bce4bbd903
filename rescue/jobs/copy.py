"""The copy job: recovery points from one repository into another."""

from collections.abc import Sequence

from core.errors import RefusedError, UsageError
from core.events import Sink
from images.store.access import Access
from images.store.backend import Writer
from images.store.connect import connect, open_repository
from images.store.copy import CopyResult, copy_points
from images.store.create import create_repository
from images.store.document import DOCUMENT
from images.store.repository import Repository
from images.store.signature import SigningKey
from images.store.writer import writable


def copy_repository(
    source: str,
    target: str,
    points: Sequence[str],
    *,
    everything: bool,
    decrypt: bool,
    sink: Sink,
    access: Access | None = None,
    target_access: Access | None = None,
    sign: SigningKey | None = None,
) -> CopyResult:
    """Copy.

    Args:
        points: as a person names them; or ``everything``.
        decrypt: allow that what is encrypted in the source lies open in the target.

    Raises:
        UsageError: nothing, or both, were named. RefusedError: the target is read-only, would hold openly what is
            encrypted, or does not fit. LockedError: somebody works exclusively in the target.
    """
    if bool(points) is everything:
        raise UsageError("Name recovery points, or give --all.", hint="liferaft snapshots shows them.")
    destination = _writable_target(target)
    opened = open_repository(source, access)
    if not destination.exists(DOCUMENT):
        _make_target(opened, destination)
    repository = Repository(destination, target_access)
    if opened.keys is not None and repository.keys is None and not decrypt:
        raise RefusedError(
            f"{opened.backend.location} is encrypted and {repository.backend.location} is not.",
            hint="Give --decrypt if it may lie open there, or make an encrypted target: liferaft init --encrypt.",
        )
    ids = tuple(point.id for point in opened.points()) if everything else _resolve(opened, points)
    return copy_points(opened, repository, ids, sink=sink, sign=sign)


def _writable_target(location: str) -> Writer:
    backend = connect(location)
    if not isinstance(backend, Writer):
        raise RefusedError(
            f"{backend.location} is read-only: a web server hands out files, and takes none.",
            hint="Copy into a folder (a mounted share, too) or an object store; or run the copy on the server.",
        )
    return writable(backend)


def _make_target(source: Repository, target: Writer) -> None:
    """A new repository like the source; an encrypted one needs a passphrase of its own, so a person makes it."""
    if source.keys is not None:
        raise RefusedError(
            f"There is no repository at {target.location} yet, and {source.backend.location} is encrypted.",
            hint="Make the target first: liferaft init --encrypt, or without it and then copy --decrypt.",
        )
    parity = source.document.parity
    create_repository(target, chunk_size=source.chunk_size, parity_blocks=parity.parity_blocks if parity else 0)


def _resolve(source: Repository, points: Sequence[str]) -> tuple[str, ...]:
    """Full ids, oldest first, so that what recovery points share is stored with the oldest."""
    wanted = {source.resolve(point) for point in points}
    known = [point.id for point in source.points()]
    return (*(found for found in known if found in wanted), *sorted(wanted - set(known)))
