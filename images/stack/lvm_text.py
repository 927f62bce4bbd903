"""LVM's text of a volume group, as it lies on the physical volumes and in vgcfgbackup's files: parsed, into facts.

The grammar is that of ``lvm.conf`` (lvm.conf(5); libdm/libdm-config.c). What is not understood is an error: a group
half understood would be made half again.
"""

import re
from collections.abc import Iterator
from typing import NoReturn

import msgspec

from core.errors import DamagedError

_TOKEN = re.compile(r'\s+|#[^\n]*|(?P<text>"(?:\\.|[^"\\])*")|(?P<mark>[{}\[\]=,])|(?P<word>[^\s{}\[\]=,"#]+)')
_DEPTH_LIMIT = 8
_SECTOR = 512
#: Kinds of segments of which liferaft makes the group again from its text.
FOLLOWED = frozenset({"striped", "linear", "thin", "thin-pool"})

Value = int | str | tuple[int | str, ...]


class Section:
    """``name { … }``: values and sections by name, in order."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.sections: dict[str, Section] = {}

    def number(self, name: str) -> int:
        """A value that is a number. Raises DamagedError."""
        found = self.values.get(name)
        if not isinstance(found, int):
            raise DamagedError(f"LVM's metadata: {name} is {found!r}, expected a number.")
        return found

    def text(self, name: str, default: str = "") -> str:
        """A value that is a string."""
        found = self.values.get(name, default)
        return found if isinstance(found, str) else default

    def words(self, name: str) -> tuple[str, ...]:
        """A value that is a list of strings."""
        found = self.values.get(name, ())
        return tuple(word for word in found if isinstance(word, str)) if isinstance(found, tuple) else ()


class Physical(msgspec.Struct, frozen=True, kw_only=True):
    """A physical volume as its group knows it. Sizes in bytes."""

    uuid: str
    size: int
    data_offset: int


class Logical(msgspec.Struct, frozen=True, kw_only=True):
    """A logical volume. ``segments``: its kinds, sorted; ``visible``: people see it; ``snapshot``: it has an origin."""

    name: str
    uuid: str
    size: int
    segments: tuple[str, ...]
    visible: bool
    pool: str = ""
    snapshot: bool = False


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A volume group. ``sequence`` grows with each change. ``oddity``: why it cannot be made again; empty if it can."""

    name: str
    uuid: str
    sequence: int
    extent_size: int
    physical: tuple[Physical, ...]
    logical: tuple[Logical, ...]
    oddity: str = ""


def parse_group(text: str) -> Group:
    """The group a text describes.

    Raises:
        DamagedError: it is not such a text.
    """
    root = parse_text(text)
    if len(root.sections) != 1:
        raise DamagedError(f"LVM's metadata describe {len(root.sections)} groups, expected 1.")
    ((name, section),) = root.sections.items()
    extent = section.number("extent_size") * _SECTOR
    physical = tuple(
        Physical(
            uuid=found.text("id"),
            size=found.number("dev_size") * _SECTOR,
            data_offset=found.number("pe_start") * _SECTOR,
        )
        for found in section.sections.get("physical_volumes", Section()).sections.values()
    )
    logical = tuple(
        _logical(name, found, extent)
        for name, found in section.sections.get("logical_volumes", Section()).sections.items()
    )
    return Group(
        name=name,
        uuid=section.text("id"),
        sequence=section.number("seqno"),
        extent_size=extent,
        physical=physical,
        logical=logical,
        oddity=_oddity(section, logical),
    )


def _logical(name: str, section: Section, extent: int) -> Logical:
    segments = list(section.sections.values())
    kinds = {_kind(segment) for segment in segments}
    return Logical(
        name=name,
        uuid=section.text("id"),
        size=sum(segment.number("extent_count") for segment in segments) * extent,
        segments=tuple(sorted(kinds)),
        visible="VISIBLE" in section.words("status"),
        pool=next((segment.text("thin_pool") for segment in segments if "thin_pool" in segment.values), ""),
        snapshot=any("origin" in segment.values or "external_origin" in segment.values for segment in segments),
    )


def _kind(segment: Section) -> str:
    kind = segment.text("type")
    return "linear" if kind == "striped" and segment.values.get("stripe_count") == 1 else kind


def _oddity(section: Section, logical: tuple[Logical, ...]) -> str:
    """Why a group cannot be made again from its text and the bytes of its visible volumes."""
    kinds = {kind for volume in logical for kind in volume.segments} - FOLLOWED
    if kinds:
        return f"it has volumes of the kind {', '.join(sorted(kinds))}"
    if any(volume.snapshot for volume in logical):
        return "it has snapshots"
    if "EXPORTED" in section.words("status"):
        return "it is exported"
    if section.text("lock_type", "none") not in ("", "none"):
        return "it is shared between machines"
    return ""


class _Tokens:
    """The tokens of a text, one looked ahead."""

    def __init__(self, text: str) -> None:
        self._found = self._read(text)
        self.next = next(self._found, "")

    def take(self, wanted: str = "") -> str:
        """The next token, which must be ``wanted`` if that is given."""
        token = self.next
        if not token or (wanted and token != wanted):
            _damaged(f"found {token[:40]!r}, expected {wanted!r}" if wanted else "it ends too early")
        self.next = next(self._found, "")
        return token

    @staticmethod
    def _read(text: str) -> Iterator[str]:
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                _damaged(f"character {position} is {text[position]!r}")
            position = match.end()
            if match.lastgroup:
                yield match.group(match.lastgroup)


def parse_text(text: str) -> Section:
    """The whole text: a section for the group, and values about the text itself.

    Raises:
        DamagedError: it is not such a text.
    """
    tokens = _Tokens(text)
    root = Section()
    while tokens.next:
        _entry(root, tokens, 0)
    return root


def write_text(section: Section, depth: int = 0) -> str:
    """A section as text again; LVM finds everything by its name, in any order."""
    indent = "\t" * depth
    lines = [f"{indent}{name} = {_written(value)}\n" for name, value in section.values.items()]
    for name, below in section.sections.items():
        lines.append(f"{indent}{name} {{\n{write_text(below, depth + 1)}{indent}}}\n")
    return "".join(lines)


def _written(value: Value) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_written(one) for one in value)}]"
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _entry(section: Section, tokens: _Tokens, depth: int) -> None:
    name = tokens.take()
    if tokens.next == "{":
        if depth >= _DEPTH_LIMIT or name in section.sections:
            _damaged(f"section {name[:40]!r} stands too deep, or twice")
        tokens.take("{")
        below = section.sections[name] = Section()
        while tokens.next != "}":
            _entry(below, tokens, depth + 1)
        tokens.take("}")
        return
    tokens.take("=")
    section.values[name] = _value(tokens)


def _value(tokens: _Tokens) -> Value:
    if tokens.next != "[":
        return _scalar(tokens.take())
    tokens.take("[")
    found: list[int | str] = []
    while tokens.next != "]":
        found.append(_scalar(tokens.take()))
        if tokens.next == ",":
            tokens.take(",")
    tokens.take("]")
    return tuple(found)


def _scalar(token: str) -> int | str:
    if token.startswith('"'):
        return re.sub(r"\\(.)", r"\1", token[1:-1])
    # Longer numbers than any size has would take long to turn into text and back.
    return int(token) if re.fullmatch(r"-?\d{1,20}", token) else token


def _damaged(what: str) -> NoReturn:
    raise DamagedError(f"LVM's metadata are not as lvm.conf(5) has it: {what}.")
