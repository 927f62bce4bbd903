"""Sealed documents: manifests and the catalogue's list in an encrypted repository (docs/image-format.md §10)."""

import base64
import binascii

import msgspec

from core.documents import decode_stored, encode
from core.errors import DamagedError
from images.store.keys import RepositoryKeys

CIPHER = "xaes-256-gcm"


class SealedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Nonce in hexadecimal, content in base64."""

    version: int = 1
    cipher: str = CIPHER
    nonce: str
    sealed: str


def seal_document(keys: RepositoryKeys, kind: str, repository: bytes, plain: bytes) -> SealedDocument:
    """Seal a document; ``kind`` ("manifest", "points") keeps one from being passed off as the other."""
    nonce, sealed = keys.documents.seal(plain, _associated(kind, repository))
    return SealedDocument(nonce=nonce.hex(), sealed=base64.b64encode(sealed).decode())


def open_document(keys: RepositoryKeys, kind: str, repository: bytes, document: SealedDocument, where: str) -> bytes:
    """The plain bytes.

    Raises:
        DamagedError: it was altered, or is another document.
    """
    if document.version != 1 or document.cipher != CIPHER:
        raise DamagedError(f"{where}: sealed with {document.cipher} (version {document.version}), expected {CIPHER}.")
    try:
        nonce, sealed = bytes.fromhex(document.nonce), base64.b64decode(document.sealed, validate=True)
    except (ValueError, binascii.Error):
        raise DamagedError(f"{where}: nonce or content are not the text they should be.") from None
    return keys.documents.open(nonce, sealed, _associated(kind, repository), where)


def seal_file(keys: RepositoryKeys, kind: str, repository: bytes, plain: bytes) -> bytes:
    """The bytes of a file that holds a sealed document."""
    return encode(seal_document(keys, kind, repository, plain))


def open_file(keys: RepositoryKeys, kind: str, repository: bytes, data: bytes, where: str) -> bytes:
    """The plain bytes of :func:`seal_file`'s. A file that is not sealed does not belong into an encrypted repository.

    Raises:
        DamagedError: it is not sealed, or was altered.
    """
    return open_document(keys, kind, repository, decode_stored(data, SealedDocument, name=where), where)


def _associated(kind: str, repository: bytes) -> bytes:
    return b"liferaft " + kind.encode() + b"\0" + repository
