"""The reader of EFI signature lists, which ``db``, ``dbx`` and shim's lists consist of (UEFI 2.10 32.4.1).

From bytes to facts; where the bytes come from is the caller's. Nothing is verified here: firmware that keeps a
certificate trusts it, whatever it says of itself.
"""

import hashlib
import struct
from collections.abc import Iterator
from uuid import UUID

import msgspec

from core.errors import DamagedError
from images.der import certificate_subject
from images.model.trust import SignatureDatabase, TrustedCertificate

#: SignatureType, SignatureListSize, SignatureHeaderSize, SignatureSize.
_LIST = struct.Struct("<16sIII")
#: Every signature begins with the GUID of its owner.
_OWNER_SIZE = 16
_SHA256_SIZE = 32
_IMAGE_SHA256 = UUID("c1c41626-504c-4092-aca9-41f936934328")
_X509 = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
#: EFI_CERT_X509_SHA256: digest of a certificate, and when it was revoked (16 bytes).
_X509_SHA256 = UUID("3bd2a492-96c0-4079-b420-fcf98ef103ed")
#: No firmware keeps more: variable stores have some hundred KiB.
MAXIMUM_SIZE = 4 * 1024 * 1024


class Signature(msgspec.Struct, frozen=True):
    """One entry: the list's type, and the bytes behind the owner's GUID."""

    kind: UUID
    data: bytes


def parse_signature_lists(content: bytes, *, name: str) -> SignatureDatabase:
    """The lists that follow one another in a variable's content.

    Args:
        name: what an error calls it.

    Raises:
        DamagedError: sizes that contradict each other, or a certificate that is none.
    """
    if len(content) > MAXIMUM_SIZE:
        raise DamagedError(f"{name} has {len(content)} bytes; expected at most {MAXIMUM_SIZE}.")
    certificates, images, digests, unread = [], [], [], 0
    for entry in _signatures(content, name):
        if entry.kind == _X509:
            certificates.append(make_trusted(entry.data, name=name))
        elif entry.kind == _IMAGE_SHA256 and len(entry.data) == _SHA256_SIZE:
            images.append(entry.data.hex())
        elif entry.kind == _X509_SHA256 and len(entry.data) >= _SHA256_SIZE:
            digests.append(entry.data[:_SHA256_SIZE].hex())
        else:
            unread += 1
    return SignatureDatabase(
        certificates=tuple(certificates), images=tuple(images), certificate_digests=tuple(digests), unread=unread
    )


def make_trusted(der: bytes, *, name: str) -> TrustedCertificate:
    """The noun of a certificate's bytes.

    Raises:
        DamagedError: it is no certificate.
    """
    subject = certificate_subject(der, name=f"a certificate in {name}")
    return TrustedCertificate(subject=subject, sha256=hashlib.sha256(der).hexdigest(), der=der)


def _signatures(content: bytes, name: str) -> Iterator[Signature]:
    offset = 0
    while offset < len(content):
        if offset + _LIST.size > len(content):
            raise _damaged(name, offset, "SignatureList", f"{_LIST.size} bytes", f"{len(content) - offset}")
        kind, size, header, each = _LIST.unpack_from(content, offset)
        start, end = offset + _LIST.size + header, offset + size
        if not start <= end <= len(content):
            raise _damaged(name, offset, "SignatureListSize", f"at most {len(content) - offset}", f"{size}")
        if each <= _OWNER_SIZE or (end - start) % each:
            raise _damaged(name, offset, "SignatureSize", f"a divisor of {end - start} above {_OWNER_SIZE}", f"{each}")
        for place in range(start, end, each):
            yield Signature(UUID(bytes_le=kind), content[place + _OWNER_SIZE : place + each])
        offset = end


def _damaged(name: str, offset: int, field: str, expected: str, found: str) -> DamagedError:
    return DamagedError(f"{name}: at byte {offset}, {field}: expected {expected}, found {found}.")
