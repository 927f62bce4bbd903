"""Signatures of recovery points: Ed25519 (RFC 8032) over the id, which is the digest of the manifest.

A signature says who took a recovery point. Whoever requires one cannot be given another's point by a server that
was broken into. Keys are PEM files as OpenSSL writes them (PKCS #8, SubjectPublicKeyInfo).
"""

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from core.documents import decode_stored, encode
from core.errors import DamagedError, RefusedError, UsageError

SIGNATURE_VERSION = 1
_CONTEXT = b"liferaft recovery point\0"


class Signature(msgspec.Struct, frozen=True):
    """One signature: public key (32 bytes) and signature (64 bytes) in hexadecimal."""

    key: str
    signature: str


class SignatureFile(msgspec.Struct, frozen=True, kw_only=True):
    """``manifests/<64 hex>.sig``."""

    version: int = SIGNATURE_VERSION
    signatures: tuple[Signature, ...]


class SigningKey:
    """A private key; it never shows itself."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "SigningKey(***)"

    @property
    def public(self) -> bytes:
        """32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, point: str) -> bytes:
        """The signature file for the recovery point with that full id."""
        signature = self._key.sign(_CONTEXT + bytes.fromhex(point))
        return encode(SignatureFile(signatures=(Signature(self.public.hex(), signature.hex()),)))


def new_signing_key() -> tuple[bytes, bytes]:
    """A new key: the private and the public PEM file."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def read_signing_key(pem: bytes, name: str) -> SigningKey:
    """A private key from a PEM file.

    Raises:
        UsageError: it is not an unencrypted Ed25519 key.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _not_a_key(name, "private") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _not_a_key(name, "private")
    return SigningKey(key)


def read_public_key(pem: bytes, name: str) -> bytes:
    """The 32 bytes of a public key from a PEM file.

    Raises:
        UsageError: it is not an Ed25519 key.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise _not_a_key(name, "public") from None
    if not isinstance(key, Ed25519PublicKey):
        raise _not_a_key(name, "public")
    return key.public_bytes_raw()


def check_signature(data: bytes | None, point: str, trusted: tuple[bytes, ...], where: str) -> None:
    """Raise unless one of the trusted keys has signed the recovery point.

    Args:
        data: the signature file; None when there is none.

    Raises:
        RefusedError: nobody trusted has signed it. DamagedError: a trusted key's signature does not match.
    """
    if data is None:
        raise RefusedError(
            f"Recovery point {point[:12]} is not signed, and a signature is required.",
            hint="Take it with --sign-key, or restore it without --require-signature if you trust its source.",
        )
    document = decode_stored(data, SignatureFile, name=where)
    if document.version > SIGNATURE_VERSION:
        raise RefusedError(f"{where} needs signature version {document.version}.", hint="Use a newer liferaft.")
    for entry in document.signatures:
        if entry.key not in {key.hex() for key in trusted}:
            continue
        try:
            public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(entry.key))
            public.verify(bytes.fromhex(entry.signature), _CONTEXT + bytes.fromhex(point))
        except (InvalidSignature, ValueError):
            raise DamagedError(
                f"{where}: the signature by {entry.key[:16]}… does not match recovery point {point[:12]}.",
                hint="It was altered or made for another recovery point. Do not restore it.",
            ) from None
        return
    signers = ", ".join(f"{entry.key[:16]}…" for entry in document.signatures[:5]) or "nobody"
    raise RefusedError(f"Recovery point {point[:12]} is signed by {signers}, not by a key that is trusted.")


def _not_a_key(name: str, kind: str) -> UsageError:
    return UsageError(
        f"{name} is not an Ed25519 {kind} key without a passphrase, in PEM.",
        hint="liferaft key new-signing-key makes a pair.",
    )
