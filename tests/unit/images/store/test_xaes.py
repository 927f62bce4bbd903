"""XAES-256-GCM against the vectors C2SP publishes."""

import pytest

from core.errors import DamagedError
from images.store.xaes import XaesKey

NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"


@pytest.mark.parametrize(
    ("key", "associated", "expected"),
    [
        (1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (3, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_published_vectors(key: int, associated: bytes, expected: str) -> None:
    # The two keys take the two branches of the doubling.
    sealing = XaesKey(bytes([key]) * 32)
    nonce, sealed = sealing.seal(b"XAES-256-GCM", associated, NONCE)
    assert (nonce, sealed.hex()) == (NONCE, expected)
    assert sealing.open(NONCE, sealed, associated, "here") == b"XAES-256-GCM"


def test_nonces_are_drawn_anew() -> None:
    key = XaesKey(bytes(32))
    assert len({key.seal(b"same", b"")[0] for _ in range(100)}) == 100


def test_another_key_another_context_or_a_cut_opens_nothing() -> None:
    key = XaesKey(bytes(32))
    nonce, sealed = key.seal(b"secret", b"a")
    for opening, data, associated in (
        (XaesKey(bytes(31) + b"x"), sealed, b"a"),
        (key, sealed, b"b"),
        (key, sealed[:-1], b"a"),
        (key, b"", b"a"),
    ):
        with pytest.raises(DamagedError, match="here"):
            opening.open(nonce, data, associated, "here")


def test_keys_do_not_show_themselves() -> None:
    assert repr(XaesKey(bytes(range(32)))) == "XaesKey(***)"
