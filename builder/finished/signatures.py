"""Who signed a program for UEFI, and what shim and its lists say: facts for preflight and inspect.

Every signature is verified with the certificates it carries: the digest of the program, the signed attributes, the
signer's key. Whether a machine trusts the signer is another question (:mod:`builder.preflight.trust`). Sources:
Microsoft's "Windows Authenticode Portable Executable Signature Format", RFC 2315, shim's SBAT.md and cert.S.
"""

import hashlib
import struct

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from builder.finished.pe import PeFile, parse_pe
from core.errors import DamagedError
from images.der import CONTEXT_0, OCTET_STRING, OID, SEQUENCE, SET, Element, child, element_at
from images.efi_signatures import make_trusted, parse_signature_lists
from images.model.trust import SignatureDatabase

_HASHES: dict[bytes, hashes.HashAlgorithm] = {
    bytes.fromhex("608648016503040201"): hashes.SHA256(),
    bytes.fromhex("608648016503040202"): hashes.SHA384(),
    bytes.fromhex("608648016503040203"): hashes.SHA512(),
}
_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_INDIRECT_DATA = bytes.fromhex("2b060104018237020104")
_MESSAGE_DIGEST = bytes.fromhex("2a864886f70d010904")
#: shim's cert.S: sizes of what is allowed and forbidden, and their offsets from the table's start.
_VENDOR_TABLE = struct.Struct("<IIII")
_MAXIMUM_CERTIFICATES = 32


class Signature(msgspec.Struct, frozen=True):
    """One signature on a program.

    Attributes:
        chain: the signer's certificate and those that vouch for it, each signed by the next; the last one's issuer is
            not in the signature.
        intact: the program and the signature are as the signer left them.
    """

    chain: tuple[x509.Certificate, ...]
    intact: bool

    @property
    def signer(self) -> str:
        """The common name of who signed."""
        return common_name(self.chain[0].subject)

    @property
    def authority(self) -> str:
        """The common name of who vouches for the signer: what firmware or shim has to trust."""
        return common_name(self.chain[0].issuer)


class SbatEntry(msgspec.Struct, frozen=True, order=True):
    """A component and its generation: a lower one than the machine asks for does not start."""

    component: str
    generation: int


class Program(msgspec.Struct, frozen=True):
    """A program for UEFI.

    Attributes:
        name: what people call it (``shim``, ``GRUB``, ``kernel``).
        digest: its Authenticode SHA-256, hexadecimal: what ``dbx`` names.
        signatures: in the order of the file; any one that is trusted suffices.
        sbat: the components in it.
        vendor: of a shim, what it trusts and refuses beside the firmware's lists; else None.
    """

    name: str
    digest: str
    signatures: tuple[Signature, ...]
    sbat: tuple[SbatEntry, ...] = ()
    vendor: tuple[SignatureDatabase, SignatureDatabase] | None = None


def read_program(content: bytes, *, name: str) -> Program:
    """Everything of a program that decides whether it may start.

    Raises:
        DamagedError: it is no PE file, or a structure in it contradicts itself.
    """
    file = parse_pe(content, name=name)
    sbat, vendor = file.section(".sbat"), file.section(".vendor_cert")
    return Program(
        name=name,
        digest=file.digest().hex(),
        signatures=tuple(_read_signature(message, file) for message in file.signatures()),
        sbat=parse_sbat(sbat.decode("ascii", "replace"), name=f"the .sbat section of {name}") if sbat else (),
        vendor=_read_vendor(vendor, name) if vendor else None,
    )


def parse_sbat(text: str, *, name: str) -> tuple[SbatEntry, ...]:
    """The first two fields of each line of an SBAT section, or of a level (``SbatLevelRT``).

    Raises:
        DamagedError: a line has no component and generation.
    """
    found = []
    for number, line in enumerate(text.split("\0", 1)[0].splitlines(), 1):
        if not line.strip():
            continue
        component, _, rest = line.partition(",")
        generation = rest.split(",", 1)[0].strip()
        if not component or not (generation.isascii() and generation.isdecimal()) or len(generation) > 9:
            raise DamagedError(f"{name}: line {number}: expected component,generation, found {line[:80]!r}.")
        found.append(SbatEntry(component.strip(), int(generation)))
    return tuple(found)


def common_name(name: x509.Name) -> str:
    """What people call the holder of a certificate."""
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME) or list(name)
    return str(found[0].value) if found else ""


def load_certificate(der: bytes, *, name: str) -> x509.Certificate:
    """A certificate from its bytes.

    Raises:
        DamagedError: it is none; ``name`` says where it lies.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        # These are parsed when they are asked for, and nobody who asks later expects an error.
        for part in ("not_valid_before_utc", "not_valid_after_utc", "subject", "issuer"):
            getattr(certificate, part)
    except (ValueError, x509.InvalidVersion) as error:
        raise DamagedError(f"A certificate in {name} cannot be read: {error}.") from None
    return certificate


def _read_signature(message: bytes, file: PeFile) -> Signature:
    """RFC 2315 9.1: the message, what is signed (SpcIndirectDataContent), certificates, one signer."""
    name = f"a signature of {file.name}"
    outer = element_at(message, 0, name=name)
    if child(outer, 0, OID, name=name).content != _SIGNED_DATA:
        raise DamagedError(f"{name}: expected PKCS #7 signed data, found another content type.")
    signed = child(child(outer, 1, CONTEXT_0, name=name), 0, SEQUENCE, name=name)
    content = child(signed, 2, SEQUENCE, name=name)
    if child(content, 0, OID, name=name).content != _INDIRECT_DATA:
        raise DamagedError(f"{name}: expected SpcIndirectDataContent, found another content type.")
    indirect = child(child(content, 1, CONTEXT_0, name=name), 0, SEQUENCE, name=name)
    fields = signed.children(name=name)
    held = next((field for field in fields[3:] if field.tag == CONTEXT_0), None)
    parts = held.children(name=name) if held else ()
    if not parts or len(parts) > _MAXIMUM_CERTIFICATES:
        raise DamagedError(f"{name}: expected 1 to {_MAXIMUM_CERTIFICATES} certificates, found {len(parts)}.")
    certificates = [load_certificate(part.whole, name=name) for part in parts]
    if fields[-1].tag != SET:
        raise DamagedError(f"{name}: expected SignerInfos, found tag {fields[-1].tag:#04x}.")
    signer = child(fields[-1], 0, SEQUENCE, name=name)
    return _judge(file, indirect, signer, certificates, name)


def _judge(
    file: PeFile, indirect: Element, signer: Element, certificates: list[x509.Certificate], name: str
) -> Signature:
    """Verify one SignerInfo (RFC 2315 9.2) over the program's digest."""
    issuer = child(signer, 1, SEQUENCE, name=name)
    serial = int.from_bytes(child(issuer, 1, 0x02, name=name).content, "big", signed=True)
    own = next((one for one in certificates if one.serial_number == serial), None)
    if own is None:
        raise DamagedError(f"{name}: expected the signer's certificate, number {serial:x}, found none.")
    algorithm = _HASHES.get(child(child(signer, 2, SEQUENCE, name=name), 0, OID, name=name).content)
    claimed = child(indirect, 1, SEQUENCE, name=name)
    image_algorithm = _HASHES.get(child(child(claimed, 0, SEQUENCE, name=name), 0, OID, name=name).content)
    attributes = child(signer, 3, CONTEXT_0, name=name)
    signature = child(signer, 5, OCTET_STRING, name=name).content
    intact = (
        algorithm is not None
        and image_algorithm is not None
        and child(claimed, 1, OCTET_STRING, name=name).content == file.digest(image_algorithm.name)
        and _message_digest(attributes, name) == hashlib.new(algorithm.name, indirect.content).digest()
        # Signed is the SET, not the context tag that stands for it in the message (RFC 2315 9.3).
        and _verify(own, signature, bytes((SET,)) + attributes.whole[1:], algorithm)
    )
    return Signature(_chain(own, certificates), intact)


def _message_digest(attributes: Element, name: str) -> bytes:
    for attribute in attributes.children(name=name):
        if child(attribute, 0, OID, name=name).content == _MESSAGE_DIGEST:
            return child(child(attribute, 1, SET, name=name), 0, OCTET_STRING, name=name).content
    return b""


def _verify(signer: x509.Certificate, signature: bytes, signed: bytes, algorithm: hashes.HashAlgorithm) -> bool:
    try:
        key = signer.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    # Firmware is bound to RSA (UEFI 2.10 32.2.1: WIN_CERT_TYPE_PKCS_SIGNED_DATA as Authenticode has it).
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    try:
        key.verify(signature, signed, padding.PKCS1v15(), algorithm)
    except InvalidSignature:
        return False
    return True


def _chain(signer: x509.Certificate, certificates: list[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    chain = [signer]
    while True:
        above = [one for one in certificates if one not in chain and vouches(one, chain[-1])]
        if not above:
            return tuple(chain)
        chain.append(above[0])


def vouches(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether ``issuer`` signed ``certificate``."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def tbs_digest(certificate: x509.Certificate) -> str:
    """SHA-256 of the to-be-signed part, hexadecimal: how ``dbx`` names a revoked certificate."""
    return hashlib.sha256(certificate.tbs_certificate_bytes).hexdigest()


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the whole certificate, hexadecimal."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def _read_vendor(section: bytes, name: str) -> tuple[SignatureDatabase, SignatureDatabase]:
    """What shim's maker built in: allowed (one certificate, or signature lists) and forbidden (lists)."""
    title = f"the .vendor_cert section of {name}"
    if len(section) < _VENDOR_TABLE.size:
        raise DamagedError(f"{title}: expected {_VENDOR_TABLE.size} bytes, found {len(section)}.")
    allowed_size, forbidden_size, allowed_at, forbidden_at = _VENDOR_TABLE.unpack_from(section)
    for offset, size in ((allowed_at, allowed_size), (forbidden_at, forbidden_size)):
        if offset + size > len(section):
            raise DamagedError(f"{title}: expected {len(section)} bytes at most, found {offset}+{size}.")
    allowed = section[allowed_at : allowed_at + allowed_size]
    forbidden = section[forbidden_at : forbidden_at + forbidden_size]
    if allowed[:2] == bytes((SEQUENCE, 0x82)):
        trusted = SignatureDatabase(certificates=(make_trusted(allowed, name=title),))
    else:
        trusted = parse_signature_lists(allowed, name=title)
    return trusted, parse_signature_lists(forbidden, name=title)
