"""The catalogue: one file that lists what a repository holds, for readers that cannot list folders (image-format §8).

Where folders can be listed, they are the truth and the catalogue only a copy of it. It is not signed: where signatures
are required it says where to look, and nothing more. Writing it is ``writer.py``'s.
"""

import re

import msgspec

from core.documents import decode_stored
from core.errors import DamagedError, UsageError
from core.units import MIB
from images.model.manifest import Manifest
from images.store.backend import MissingFileError, Reader
from images.store.keys import RepositoryKeys
from images.store.sealed import SealedDocument, open_document

CATALOGUE = "catalogue.json"

#: Names of our own files; what else lies beside them (macOS leaves ``._`` files) is not ours.
MANIFEST_NAME = re.compile(r"[0-9a-f]{64}\.json")
INDEX_NAME = re.compile(r"[0-9a-f]{32}\.index")
_LIMIT = 64 * MIB
#: Digits of an id that are enough for a person to name it by.
_DIGITS = 4


class PointSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A recovery point in a list. Sizes in bytes."""

    id: str
    name: str
    created: str
    origin: str
    disk_size: int
    allocated: int


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``catalogue.json`` (§8). In an encrypted repository ``sealed`` holds what ``points`` would."""

    version: int = 1
    indexes: tuple[str, ...]
    points: tuple[PointSummary, ...] = ()
    keys: tuple[str, ...] = ()
    sealed: SealedDocument | None = None


def read_catalogue(backend: Reader) -> Catalogue:
    """The catalogue as it lies there.

    Raises:
        DamagedError: it is missing or damaged.
    """
    try:
        data = backend.read(CATALOGUE, _LIMIT)
    except MissingFileError as error:
        raise DamagedError(
            f"{error.message} Without it a server that does not list folders cannot be read.",
            hint="Serve the whole folder; any capture into it writes the catalogue anew.",
        ) from None
    return decode_stored(data, Catalogue, name=f"{backend.location}/{CATALOGUE}")


def catalogued_points(backend: Reader, keys: RepositoryKeys | None, repository: bytes) -> tuple[PointSummary, ...]:
    """The recovery points that the catalogue lists.

    Args:
        keys: of an encrypted repository. repository: its id, 16 bytes.

    Raises:
        DamagedError: it is missing or damaged, or its list is not sealed as it must be.
    """
    catalogue = read_catalogue(backend)
    if keys is None:
        return catalogue.points
    where = f"{backend.location}/{CATALOGUE}"
    if catalogue.sealed is None:
        raise DamagedError(f"{where}: its list is not sealed, as it must be in an encrypted repository.")
    plain = open_document(keys, "points", repository, catalogue.sealed, where)
    return decode_stored(plain, tuple[PointSummary, ...], name=where)


def manifest_ids(backend: Reader, keys: RepositoryKeys | None, repository: bytes) -> list[str]:
    """The ids of all manifests, sound or not. Raises, and takes, as :func:`catalogued_points`."""
    if backend.lists:
        names = backend.list("manifests")
    else:
        names = tuple(f"{point.id}.json" for point in catalogued_points(backend, keys, repository))
    return [name.removesuffix(".json") for name in names if MANIFEST_NAME.fullmatch(name)]


def index_names(backend: Reader) -> tuple[str, ...]:
    """The names of the index files. Raises DamagedError."""
    if backend.lists:
        return tuple(name for name in backend.list("indexes") if INDEX_NAME.fullmatch(name))
    names = read_catalogue(backend).indexes
    for name in names:
        if not INDEX_NAME.fullmatch(name):
            raise DamagedError(f"{backend.location}/{CATALOGUE}: {name!r} is not the name of an index.")
    return names


def key_names(backend: Reader) -> tuple[str, ...]:
    """The names of the key files. Raises DamagedError."""
    return backend.list("keys") if backend.lists else read_catalogue(backend).keys


def named_point(text: str, points: tuple[PointSummary, ...], known: list[str]) -> str | None:
    """The id of the recovery point that a person named: the beginning of its id, its name, or ``latest``.

    Args:
        points: those that can be read, oldest first; of several with one name the newest is meant.
        known: the ids of all.

    Returns:
        None when none is called so.

    Raises:
        UsageError: several ids begin so.
    """
    if text == "latest" and points:
        return points[-1].id
    matches = [identifier for identifier in known if len(text) >= _DIGITS and identifier.startswith(text.lower())]
    matches = matches or [point.id for point in points if point.name == text][-1:]
    if len(matches) > 1:
        raise UsageError(f"{text} is the beginning of {len(matches)} recovery points.", hint="Give more digits.")
    return matches[0] if matches else None


def summarize(identifier: str, manifest: Manifest) -> PointSummary:
    """What a list shows of a recovery point."""
    return PointSummary(
        id=identifier,
        name=manifest.name,
        created=manifest.created,
        origin=manifest.origin,
        disk_size=sum(disk.size for disk in manifest.layout.disks),
        allocated=sum(volume.allocated for volume in manifest.volumes),
    )
