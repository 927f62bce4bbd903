"""Documents that are none: every refusal is one of ours, found by the fuzzer or thought of."""

import msgspec
import pytest

from core.documents import decode_stored, decode_written
from core.errors import DamagedError, UsageError


class Note(msgspec.Struct, frozen=True):
    text: str
    more: tuple[msgspec.Raw, ...] = ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"text":1}',
        b'{"text":"\xff\xfe"}',
        b'{"text":"x","unknown":' + b"[" * 100_000,
        b'{"text":"x","more":' + b"[" * 100_000,
    ],
)
def test_what_is_not_the_document_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedError, match="stored"):
        decode_stored(data, Note, name="stored")
    with pytest.raises(UsageError, match="written"):
        decode_written(data, Note, name="written")
