"""Documents: frozen structs to canonical JSON and back, with errors a person can act on.

Documents that people write (recipe, job, plan, settings) forbid unknown fields in their struct
(``forbid_unknown_fields=True``) and are read with :func:`decode_written`; documents that liferaft
wrote are read with :func:`decode_stored`, where a bad one is damage.
"""

from typing import TypeVar

import msgspec

from core.errors import DamagedError, UsageError

T = TypeVar("T")

#: What msgspec raises on bytes that are not the document: also text that is not UTF-8, and endless nesting.
_REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_ENCODER = msgspec.json.Encoder(order="sorted")


def encode(document: object) -> bytes:
    """Canonical JSON: sorted keys, no white space, one newline at the end; equal documents give equal bytes."""
    return _ENCODER.encode(document) + b"\n"


def encode_readable(document: object) -> str:
    """The same document indented, for people and for files that people edit."""
    return msgspec.json.format(_ENCODER.encode(document), indent=2).decode() + "\n"


def decode_written(content: bytes, kind: type[T], *, name: str) -> T:
    """Read a document that a person wrote.

    Raises:
        UsageError: naming the document, the field and what is wrong with it.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except _REFUSALS as error:
        raise UsageError(f"{name} is not a valid {_noun(kind)}: {error}.", hint="Nothing was done.") from None


def decode_stored(content: bytes, kind: type[T], *, name: str) -> T:
    """Read a document that liferaft wrote.

    Raises:
        DamagedError: naming the file and the field.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except _REFUSALS as error:
        raise DamagedError(f"{name} is not a valid {_noun(kind)}: {error}.") from None


def _noun(kind: type[object]) -> str:
    return kind.__name__.lower() if isinstance(kind, type) else "document"
