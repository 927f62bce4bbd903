"""XAES-256-GCM: AES-256-GCM with 24-byte nonces, long enough to be drawn at random for ever (C2SP, XAES-256-GCM).

Bytes in, bytes out: which key seals what is decided in ``keys.py``.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import DamagedError

KEY_SIZE = 32
NONCE_SIZE = 24
TAG_SIZE = 16
_BLOCK = 16
#: What doubling in GF(2^128) folds back (NIST SP 800-38B, the subkeys of CMAC).
_FOLD = 0x87


class XaesKey:
    """A 32-byte key. Safe to use from several threads; says nothing of itself when printed."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError(f"a key of {len(key)} bytes")
        self._key = key
        self._subkey = _double(self._block_encrypt(bytes(_BLOCK)))

    def __repr__(self) -> str:
        return "XaesKey(***)"

    def seal(self, plain: bytes | memoryview, associated: bytes, nonce: bytes = b"") -> tuple[bytes, bytes]:
        """Encrypt and authenticate.

        Args:
            associated: authenticated with it, but not hidden.
            nonce: 24 bytes; drawn at random when empty, which is what everything but a test wants.

        Returns:
            the nonce, and what was sealed: as long as ``plain`` and 16 bytes of tag.
        """
        nonce = nonce or os.urandom(NONCE_SIZE)
        return nonce, self._derived(nonce).encrypt(nonce[12:], plain, associated)

    def open(self, nonce: bytes, sealed: bytes | memoryview, associated: bytes, where: str) -> bytes:
        """Decrypt what :meth:`seal` gave.

        Raises:
            DamagedError: it was altered, or sealed with another key or other associated data; names ``where``.
        """
        if len(nonce) != NONCE_SIZE or len(sealed) < TAG_SIZE:
            raise DamagedError(f"{where}: {len(sealed)} sealed bytes with a nonce of {len(nonce)} are too few.")
        try:
            return self._derived(nonce).decrypt(nonce[12:], sealed, associated)
        except InvalidTag:
            raise DamagedError(f"{where}: its authentication tag does not match: it was altered.") from None

    def _derived(self, nonce: bytes) -> AESGCM:
        """The key for one message: CMAC in counter mode over the first half of the nonce (C2SP, §"Overview")."""
        halves = (bytes((0, counter)) + b"X\0" + nonce[:12] for counter in (1, 2))
        return AESGCM(b"".join(self._block_encrypt(_xor(half, self._subkey)) for half in halves))

    def _block_encrypt(self, block: bytes) -> bytes:
        encryptor = Cipher(algorithms.AES(self._key), modes.ECB()).encryptor()
        return encryptor.update(block) + encryptor.finalize()


def _double(block: bytes) -> bytes:
    value = int.from_bytes(block, "big") << 1
    if value >> 128:
        value = (value & ((1 << 128) - 1)) ^ _FOLD
    return value.to_bytes(_BLOCK, "big")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
