"""Key slots against docs/image-format.md §10, and what a reader refuses to be asked for."""

import time

import msgspec
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from core.documents import encode
from core.errors import DamagedError, LiferaftError, RefusedError, UsageError
from images.store.keys import KeySlot, decode_slot, new_keys, unwrap
from images.store.passphrase import Passphrase
from images.store.xaes import XaesKey

REPOSITORY = bytes(range(16))
WORDS = Passphrase("correct horse")


def slot() -> KeySlot:
    return new_keys().wrap(WORDS, REPOSITORY, label="first", created="2026-11-21T00:00:00+00:00")


def test_a_slot_is_what_the_format_says() -> None:
    """Opened with nothing but the text: argon2id of the NFKC passphrase, XAES-256-GCM, the associated data."""
    keys = new_keys()
    made = msgspec.json.decode(encode(keys.wrap(WORDS, REPOSITORY, label="first", created="now")))
    # RFC 9106 §4, the second recommended option.
    assert (made["kdf"], made["iterations"], made["lanes"], made["memory"]) == ("argon2id", 3, 4, 1 << 16)
    stretched = Argon2id(
        salt=bytes.fromhex(made["salt"]), length=32, iterations=3, lanes=4, memory_cost=1 << 16
    ).derive(b"correct horse")
    rest = {**made, "nonce": "", "sealed": ""}
    canonical = msgspec.json.encode(dict(sorted(rest.items()))) + b"\n"
    associated = b"liferaft key slot\0" + REPOSITORY + canonical
    master = XaesKey(stretched).open(bytes.fromhex(made["nonce"]), bytes.fromhex(made["sealed"]), associated, "slot")
    ids = blake3(master, derive_key_context="liferaft 2026-11 chunk ids").digest()
    assert keys.identify(b"content") == blake3(b"content", key=ids).digest()


def test_only_its_passphrase_and_its_repository_open_it() -> None:
    made = slot()
    assert unwrap(made, WORDS, REPOSITORY, "slot") is not None
    assert unwrap(made, Passphrase("correct horse "), REPOSITORY, "slot") is None
    assert unwrap(made, WORDS, bytes(16), "slot") is None


def test_a_wrong_passphrase_takes_no_time() -> None:
    made = slot()
    started = time.process_time()
    assert unwrap(made, Passphrase("wrong"), REPOSITORY, "slot") is None
    assert time.process_time() - started < 2, "0.1 s of wall time and 0.2 s of processor time on the machine of 2026"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"iterations": 0}, "out of bounds"),
        ({"iterations": 65}, "out of bounds"),
        ({"lanes": 0}, "out of bounds"),
        ({"lanes": 65, "memory": 1 << 16}, "out of bounds"),
        ({"memory": 31}, "out of bounds"),
        ({"memory": (1 << 20) + 1}, "out of bounds"),
        ({"memory": 1 << 60}, "out of bounds"),
        ({"iterations": 5, "memory": 1 << 20}, "out of bounds"),
        ({"salt": "00"}, "salt is not 16 bytes"),
        ({"nonce": "x" * 48}, "nonce is not 24 bytes"),
        ({"sealed": "00" * 49}, "sealed is not 48 bytes"),
        ({"memory": "much"}, "not a valid keyslot"),
        ({"version": 2}, "key slot version 2"),
        ({"kdf": "scrypt"}, "scrypt"),
    ],
)
def test_what_a_slot_may_not_ask_for(changes: dict[str, object], said: str) -> None:
    document = {**msgspec.json.decode(encode(slot())), **changes}
    with pytest.raises(LiferaftError, match=said) as caught:
        decode_slot(msgspec.json.encode(document), "keys/0.json")
    newer = "version" in changes or "kdf" in changes
    assert isinstance(caught.value, RefusedError if newer else DamagedError)
    assert "keys/0.json" in caught.value.message


def test_an_empty_passphrase_is_none() -> None:
    with pytest.raises(UsageError, match="empty"):
        Passphrase("")


def test_keys_do_not_show_themselves() -> None:
    keys = new_keys()
    assert repr(keys) == "RepositoryKeys(***)" and repr(keys.records) == "XaesKey(***)"
