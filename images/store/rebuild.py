"""Rebuild: all indexes anew from the packs alone (docs/image-format.md §9).

For when indexes are lost or cannot be believed. It changes no pack: the sound records of a truncated or damaged pack
are entered where they lie, the rest is told.
"""

import msgspec

from core.errors import DamagedError
from core.events import Event, Sink, Stage
from images.store.locks import Lock
from images.store.repair import index_packs
from images.store.repository import Repository, pack_name
from images.store.writer import writable, write_catalogue


class RebuildResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        packs: looked through. records: entered. indexes: written; removed: old ones.
        warnings: what was passed over, with its address.
    """

    packs: int
    records: int
    indexes: int
    removed: int
    warnings: tuple[str, ...]


def rebuild_indexes(repository: Repository, lock: Lock, *, prove: bool, sink: Sink) -> RebuildResult:
    """Write new indexes, the catalogue, and remove the old ones.

    Args:
        lock: the exclusive lock.
        prove: read and hash every record; else the checksums of headers are believed, except behind damage.
    """
    backend = writable(repository.backend)
    # Old indexes by every name a reader would take, damaged ones, too.
    old = repository.index_names() if backend.lists else ()
    packs = _packs(repository, sink)
    warnings: list[str] = []

    def hear(event: Event) -> None:
        if event.warning:
            warnings.append(event.message)
        sink(event)

    sink(Event(stage=Stage.CHECK, message=f"Looking through {len(packs)} packs"))
    records, files = index_packs(repository, packs, hear, prove=prove)
    write_catalogue(repository, without_indexes=frozenset(old))
    lock.check()
    for name in old:
        backend.remove(f"indexes/{name}")
    repository.reload()
    return RebuildResult(
        packs=len(packs), records=records, indexes=len(files), removed=len(old), warnings=tuple(warnings)
    )


def _packs(repository: Repository, sink: Sink) -> dict[bytes, int]:
    """Every pack with its bytes."""
    found: dict[bytes, int] = {}
    for name, size in repository.backend.sizes("packs").items():
        stem = name.rpartition("/")[2].removesuffix(".pack")
        try:
            pack = bytes.fromhex(stem) if len(stem) == 32 else b""
        except ValueError:
            continue
        if pack and name == pack_name(pack):
            found[pack] = size
    if not found and repository.manifest_ids():
        raise DamagedError(
            f"{repository.backend.location}/packs holds no pack, though there are recovery points.",
            hint="Is the repository complete? Nothing was changed.",
        )
    return found
