"""The repository document, ``liferaft.json``: what a repository is made of (docs/image-format.md §3)."""

import os
import re

import msgspec

from core.documents import decode_stored
from core.errors import DamagedError, RefusedError, UsageError
from core.units import KIB, MIB
from images.store.backend import LocalBackend, MissingFileError, Reader
from images.store.pages import FAN_OUT
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


class Encryption(msgspec.Struct, frozen=True, kw_only=True):
    """How everything is sealed, and how content is identified."""

    cipher: str = CIPHER
    ids: str = KEYED_IDS


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """Reed-Solomon parity of each pack: blocks of ``block_size`` bytes, ``parity_blocks`` for ``data_blocks``."""

    code: str = "reed-solomon"
    data_blocks: int = 128
    parity_blocks: int
    block_size: int = 64 * KIB


class RepositoryDocument(msgspec.Struct, frozen=True, kw_only=True):
    """``liferaft.json``. ``id`` has 32 hexadecimal digits; ``chunk_size`` is bytes."""

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
        parity=Parity(parity_blocks=parity_blocks) if parity_blocks else None,
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
    encryption, parity = document.encryption, document.parity
    if encryption is not None and (encryption.cipher, encryption.ids) != (CIPHER, KEYED_IDS):
        return f"encryption with {encryption.cipher} and {encryption.ids} is not known"
    if parity is not None and not _is_sound(parity):
        return (
            f"parity of {parity.parity_blocks} for {parity.data_blocks} blocks of {parity.block_size} is out of bounds"
        )
    return ""


def _is_sound(parity: Parity) -> bool:
    size = parity.block_size
    return (
        parity.code == "reed-solomon"
        and parity.data_blocks >= 1
        and parity.parity_blocks >= 1
        and parity.data_blocks + parity.parity_blocks <= 256
        and 4 * KIB <= size <= MIB
        and not size & (size - 1)
    )
