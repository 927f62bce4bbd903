"""What lies in a repository and no recovery point needs. Counting only; ``prune.py`` removes it."""

import msgspec
import numpy as np

from images.store.backend import Reader, Writer
from images.store.findings import Garbage
from images.store.inspection import Inspection
from images.store.locks import FOLDER
from images.store.parity import parity_name
from images.store.repository import Repository


class Strays(msgspec.Struct, frozen=True, kw_only=True):
    """Files that belong to nothing: names from the repository's root.

    Attributes:
        leftovers: of writers that were cut off. parity: whose pack is gone and in no index.
        signatures: whose manifest is gone.
    """

    leftovers: tuple[str, ...]
    parity: tuple[str, ...]
    signatures: tuple[str, ...]


def find_strays(repository: Repository, packs: set[bytes], parity_files: set[bytes]) -> Strays:
    """What belongs to nothing.

    Args:
        packs: that are there, or that an index names. parity_files: packs that have a parity file.
    """
    backend = repository.backend
    points = set(repository.manifest_ids())
    signatures = [name for name in backend.list("manifests") if name.endswith(".sig")]
    return Strays(
        leftovers=leftovers(backend),
        parity=tuple(parity_name(pack) for pack in sorted(parity_files - packs)),
        signatures=tuple(f"manifests/{name}" for name in signatures if name[:-4] not in points and len(name) == 68),
    )


def leftovers(backend: Reader) -> tuple[str, ...]:
    """Half-written files, but for those of locks: somebody may be asking for one at this moment."""
    if not isinstance(backend, Writer):
        return ()
    return tuple(name for name in backend.leftovers() if not name.startswith(f"{FOLDER}/"))


def count_garbage(inspection: Inspection) -> Garbage:
    """What prune would collect."""
    repository = inspection.repository
    named = set(inspection.tables.pack_sizes())
    unnamed = [size for pack, size in inspection.pack_files.items() if pack not in named]
    unused = [~used for used in inspection.census.used]
    sizes = [int(table.lengths()[mask].sum()) for table, mask in zip(inspection.tables, unused, strict=True)]
    strays = None
    if repository.backend.lists:
        strays = find_strays(repository, named | set(inspection.pack_files), inspection.parity_files)
    return Garbage(
        leftovers=len(strays.leftovers) if strays else 0,
        packs=len(unnamed),
        pack_bytes=sum(unnamed),
        records=sum(int(np.count_nonzero(mask)) for mask in unused),
        record_bytes=sum(sizes),
        indexes=sum(not used.any() for used in inspection.census.used),
        strays=len(strays.parity) + len(strays.signatures) if strays else 0,
    )
