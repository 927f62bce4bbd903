"""The keys of an encrypted repository (docs/image-format.md §10).

A random master key seals everything; each key slot is a file that holds it, wrapped by a passphrase. Adding,
changing and removing passphrases touches slots only, never data. What a key slot does not hide: that it is one.
"""

import os

import msgspec
from blake3 import blake3
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from core.documents import decode_stored, encode
from core.errors import DamagedError, RefusedError
from images.store.passphrase import Passphrase
from images.store.xaes import KEY_SIZE, NONCE_SIZE, TAG_SIZE, XaesKey

SLOT_VERSION = 1
KDF = "argon2id"
#: RFC 9106 §4, the second recommendation: for machines that may not have gigabytes to spare, as a rescue medium's.
_ITERATIONS, _LANES, _MEMORY_KIB = 3, 4, 64 * 1024
#: What a slot may ask of a reader, who has not authenticated it yet.
_ITERATION_LIMIT, _LANE_LIMIT, _MEMORY_LIMIT_KIB = 64, 64, 1024 * 1024
#: KiB filled in all passes together: about three seconds of one processor.
_WORK_LIMIT_KIB = 4 * 1024 * 1024
_SALT_SIZE = 16


class KeySlot(msgspec.Struct, frozen=True, kw_only=True):
    """``keys/<32 hex>.json``: the master key under one passphrase. Hex strings; memory in KiB."""

    version: int = SLOT_VERSION
    label: str
    created: str
    kdf: str = KDF
    iterations: int = _ITERATIONS
    lanes: int = _LANES
    memory: int = _MEMORY_KIB
    salt: str
    nonce: str = ""
    sealed: str = ""


class RepositoryKeys:
    """What an open encrypted repository works with: three keys derived from the master key.

    Attributes:
        records: seals records of packs. documents: seals manifests and the catalogue's points.
    """

    def __init__(self, master: bytes) -> None:
        self._master = master
        self._ids = _derive(master, "liferaft 2026-11 chunk ids")
        self.records = XaesKey(_derive(master, "liferaft 2026-11 records"))
        self.documents = XaesKey(_derive(master, "liferaft 2026-11 documents"))

    def __repr__(self) -> str:
        return "RepositoryKeys(***)"

    def identify(self, plain: bytes | bytearray | memoryview) -> bytes:
        """The keyed id of content: without the key it tells nothing, not even whether a guess is right."""
        return blake3(plain, key=self._ids).digest()

    def wrap(self, passphrase: Passphrase, repository: bytes, *, label: str, created: str) -> KeySlot:
        """A new slot that gives these keys for ``passphrase``; ``repository`` is its 16-byte id."""
        slot = KeySlot(
            label=label,
            created=created,
            iterations=_ITERATIONS,
            lanes=_LANES,
            memory=_MEMORY_KIB,
            salt=os.urandom(_SALT_SIZE).hex(),
        )
        key = XaesKey(_stretch(slot, passphrase))
        nonce, sealed = key.seal(self._master, _associated(slot, repository))
        return msgspec.structs.replace(slot, nonce=nonce.hex(), sealed=sealed.hex())


def new_keys() -> RepositoryKeys:
    """Keys from a new random master key."""
    return RepositoryKeys(os.urandom(KEY_SIZE))


def unwrap(slot: KeySlot, passphrase: Passphrase, repository: bytes, where: str) -> RepositoryKeys | None:
    """The keys in a slot; None when the passphrase is not this slot's."""
    key = XaesKey(_stretch(slot, passphrase))
    try:
        master = key.open(bytes.fromhex(slot.nonce), bytes.fromhex(slot.sealed), _associated(slot, repository), where)
    except DamagedError:
        # A wrong passphrase and an altered slot look the same, by design of the cipher.
        return None
    return RepositoryKeys(master)


def decode_slot(data: bytes, where: str) -> KeySlot:
    """A slot from its file.

    Raises:
        DamagedError: it is not one, or asks for more work than any slot may. RefusedError: it is newer.
    """
    slot = decode_stored(data, KeySlot, name=where)
    if slot.version > SLOT_VERSION or slot.kdf != KDF:
        raise RefusedError(
            f"{where} has key slot version {slot.version} ({slot.kdf}); this liferaft reads version {SLOT_VERSION}.",
            hint="Use a newer liferaft.",
        )
    for field, value, size in (
        ("salt", slot.salt, _SALT_SIZE),
        ("nonce", slot.nonce, NONCE_SIZE),
        ("sealed", slot.sealed, KEY_SIZE + TAG_SIZE),
    ):
        if not _is_hex(value, size):
            raise DamagedError(f"{where}: {field} is not {size} bytes in hexadecimal.")
    if (
        not 1 <= slot.iterations <= _ITERATION_LIMIT
        or not 1 <= slot.lanes <= _LANE_LIMIT
        or not 8 * slot.lanes <= slot.memory <= _MEMORY_LIMIT_KIB
        or work_of(slot) > _WORK_LIMIT_KIB
    ):
        raise DamagedError(
            f"{where}: argon2id with {slot.iterations} iterations, {slot.lanes} lanes and {slot.memory} KiB is out of "
            "bounds."
        )
    return slot


def work_of(slot: KeySlot) -> int:
    """What trying a passphrase on a slot costs: KiB of memory that are filled, in all passes together."""
    return slot.iterations * slot.memory


def _is_hex(text: str, size: int) -> bool:
    try:
        return len(text) == 2 * size and len(bytes.fromhex(text)) == size
    except ValueError:
        return False


def _stretch(slot: KeySlot, passphrase: Passphrase) -> bytes:
    try:
        kdf = Argon2id(
            salt=bytes.fromhex(slot.salt),
            length=KEY_SIZE,
            iterations=slot.iterations,
            lanes=slot.lanes,
            memory_cost=slot.memory,
        )
        return kdf.derive(passphrase.encode())
    except UnsupportedAlgorithm:
        raise RefusedError(
            "This machine's cryptography library has no argon2id.", hint="Install cryptography 45 or newer."
        ) from None
    except MemoryError:
        raise RefusedError(
            f"Opening the key needs {slot.memory // 1024} MiB of memory, and this machine has too little free."
        ) from None


def _associated(slot: KeySlot, repository: bytes) -> bytes:
    """Everything a slot says, and whose it is: none of it can be changed without the passphrase."""
    return b"liferaft key slot\0" + repository + encode(msgspec.structs.replace(slot, nonce="", sealed=""))


def _derive(master: bytes, purpose: str) -> bytes:
    return blake3(master, derive_key_context=purpose).digest()
