"""The repository document, ``liferaft.json``: what a repository is made of (docs/image-format.md §3)."""

import os
import re

import msgspec

from core.documents import decode_stored
from core.errors import DamagedError, RefusedError, UsageError
from core.units import KIB, MIB
from images.store.backend import LocalBackend, MissingFileError, Reader
from images.store.pages import FAN_OUT
from images.store.parity_head import Parity, choose_parity
from images.store.sealed import CIPHER

DOCUMENT = "liferaft.json"
FORMAT = "liferaft repository"
#: 2 since prune exists: whoever writes has to hold a lock.
VERSION = 2
CHUNK_SIZE = MIB
HASH = "blake3-256"
KEYED_IDS = "keyed-blake3-256"

_LIMIT = 64 * KIB
_ID = re.compile(r"[0-9a-f]{32}")


class Encryption(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How everything is sealed, and how content is identified."""

    cipher: str = CIPHER
    ids: str = KEYED_IDS


class RepositoryDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``liferaft.json``. ``id`` has 32 hexadecimal digits; ``chunk_size`` is bytes.

    Its version is known when it is read, so a field that is not known is one whose name was damaged: ``encryption``
    must not be taken for null because of one bit.
    """

    format: str = FORMAT
    version: int = VERSION
    id: str
    chunk_size: int = CHUNK_SIZE
    fan_out: int = FAN_OUT
    hash: str = HASH
    encryption: Encryption | None = None
    parity: Parity | None = None


def new_document(
    *, chunk_size: int = CHUNK_SIZE, encrypted: bool = False, parity_blocks: int = 0
) -> RepositoryDocument:
    """The document of a new repository.

    Raises:
        UsageError: a parameter is out of bounds.
    """
    document = RepositoryDocument(
        id=os.urandom(16).hex(),
        chunk_size=chunk_size,
        encryption=Encryption() if encrypted else None,
        parity=choose_parity(parity_blocks),
    )
    problem = _out_of_bounds(document)
    if problem:
        raise UsageError(f"A repository cannot have that: {problem}.")
    return document


def read_document(backend: Reader) -> RepositoryDocument:
    """The document of the repository there.

    Raises:
        UsageError: there is nothing there. RefusedError: it is not a repository, or from the future.
        DamagedError: it is damaged.
    """
    where = backend.location
    try:
        data = backend.read(DOCUMENT, _LIMIT)
    except MissingFileError:
        if isinstance(backend, LocalBackend) and not backend.folder.exists():
            raise UsageError(
                f"There is no repository at {where}: the folder does not exist.",
                hint="Is the disk mounted? liferaft capture makes a new repository.",
            ) from None
        raise RefusedError(
            f"{where} is not a liferaft repository: it has no {DOCUMENT}.",
            hint=f"Name the folder that holds {DOCUMENT}.",
        ) from None
    head = decode_stored(data, _Head, name=f"{where}/{DOCUMENT}")
    if head.format != FORMAT:
        raise RefusedError(f"{where}/{DOCUMENT} says {head.format!r}: not a liferaft repository.")
    if head.version > VERSION:
        raise RefusedError(
            f"{where} has repository version {head.version}; this liferaft reads up to {VERSION}.",
            hint="Use a newer liferaft.",
        )
    document = decode_stored(data, RepositoryDocument, name=f"{where}/{DOCUMENT}")
    problem = _out_of_bounds(document)
    if problem:
        raise DamagedError(f"{where}/{DOCUMENT}: {problem}.")
    return document


class _Head(msgspec.Struct, frozen=True):
    """What every version of the document has, so that a newer one is refused by its version and nothing else."""

    format: str
    version: int


def _out_of_bounds(document: RepositoryDocument) -> str:
    size = document.chunk_size
    if not 64 * KIB <= size <= 16 * MIB or size & (size - 1) or document.fan_out != FAN_OUT:
        return f"chunk_size {size} or fan_out {document.fan_out} is out of bounds"
    if document.hash != HASH or not _ID.fullmatch(document.id) or document.version < 1:
        return "version, hash or id is not what it must be"
    encryption = document.encryption
    if encryption is not None and (encryption.cipher, encryption.ids) != (CIPHER, KEYED_IDS):
        return f"encryption with {encryption.cipher} and {encryption.ids} is not known"
    return ""
