"""Documents: frozen structs to canonical JSON and back, with errors a person can act on.

Documents that people write (recipe, job, plan, settings) forbid unknown fields in their struct
(``forbid_unknown_fields=True``) and are read with :func:`decode_written`; documents that liferaft
wrote are read with :func:`decode_stored`, where a bad one is damage.
"""

import re
from typing import TypeVar

import msgspec

from core.errors import DamagedError, UsageError
from core.fields import allowed_values, nearest_field, unknown_fields

T = TypeVar("T")

#: What msgspec raises on bytes that are not the document: also text that is not UTF-8, and endless nesting.
_REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_UNKNOWN = re.compile(r"unknown field `(?P<field>[^`]{1,80})`")
_ENCODER = msgspec.json.Encoder(order="sorted")


def encode(document: object) -> bytes:
    """Canonical JSON: sorted keys, no white space, one newline at the end; equal documents give equal bytes.

    File names need not be UTF-8, JSON is: of what is not, an escape (``\\udcff``) is written.
    """
    return _encode(document) + b"\n"


def encode_readable(document: object) -> str:
    """The same document indented, for people and for files that people edit."""
    return msgspec.json.format(_encode(document), indent=2).decode() + "\n"


def decode_written(content: bytes, kind: type[T], *, name: str) -> T:
    """Read a document that a person wrote.

    Raises:
        UsageError: naming the document, the field and what is wrong with it; for a field that nobody knows, the known
            one that is spelled most like it; for a word that is none of a few, those.
    """
    try:
        document = msgspec.json.decode(content, type=kind)
        problem = next((_strange(*found) for found in unknown_fields(msgspec.json.decode(content), kind)), "")
    except _REFUSALS as error:
        document, problem = None, str(error)
    if document is None or problem:
        unknown = _UNKNOWN.search(problem)
        near = nearest_field(unknown["field"], kind) if unknown else ""
        allowed = allowed_values(problem, kind)
        hints = [f"Is {near} meant?"] if near else [f"It may be {', '.join(allowed)}."] if allowed else []
        raise UsageError(
            f"{name} is not a valid {_noun(kind)}: {problem}.", hint=" ".join((*hints, "Nothing was done."))
        )
    return document


def decode_stored(content: bytes, kind: type[T], *, name: str) -> T:
    """Read a document that liferaft wrote.

    Raises:
        DamagedError: naming the file and the field.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except _REFUSALS as error:
        raise DamagedError(f"{name} is not a valid {_noun(kind)}: {error}.") from None


def _encode(document: object) -> bytes:
    try:
        return _ENCODER.encode(document)
    except UnicodeEncodeError:
        return _ENCODER.encode(_speakable(msgspec.to_builtins(document)))


def _speakable(part: object) -> object:
    """Without the lone surrogates that Python puts in the place of bytes that are not UTF-8 (PEP 383)."""
    if isinstance(part, str):
        return part.encode("utf-8", "backslashreplace").decode()
    if isinstance(part, dict):
        return {_speakable(key): _speakable(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_speakable(value) for value in part]
    return part


def _strange(field: str, place: str) -> str:
    """As msgspec says it of structs that forbid such fields."""
    return f"Object contains unknown field `{field}`" + ("" if place == "$" else f" - at `{place}`")


def _noun(kind: type[object]) -> str:
    return kind.__name__.lower() if isinstance(kind, type) else "document"
