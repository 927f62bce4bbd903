"""Documents that are none: every refusal is one of ours, found by the fuzzer or thought of."""

import json
import os

import msgspec
import pytest

from core.documents import decode_stored, decode_written, encode, encode_readable
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


class Page(msgspec.Struct, frozen=True):
    title: Note
    lines: tuple[str, ...]
    by_name: dict[str, int]


def test_names_that_are_not_utf_8_do_not_cost_the_document() -> None:
    """A disk image or a folder may be called so; a capture of hours must not end there."""
    name = os.fsdecode(b"disk\xff\n.img")
    page = Page(title=Note(name), lines=("\u00e9", name), by_name={name: 1})
    said = "disk\\udcff\n.img"
    expected = {"title": {"text": said, "more": []}, "lines": ["\u00e9", said], "by_name": {said: 1}}
    assert json.loads(encode(page)) == expected
    assert json.loads(encode_readable(page)) == expected
    assert encode(Note("\u00e9")) == '{"more":[],"text":"\u00e9"}\n'.encode()
