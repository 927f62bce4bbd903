"""The fields that a document has, by its type: those that JSON text has beyond them, and the nearest known name.

A struct that is shared with stored documents tolerates what a newer version wrote. In a document that a person wrote
the same struct must not swallow a misspelled field: this finds it.
"""

import difflib
import re
from collections.abc import Iterator

import msgspec
import msgspec.inspect as kinds

#: What msgspec says of a word that an enum does not have.
_REFUSED = re.compile(r"^Invalid enum value .* - at `(?P<place>\$[^`]{0,200})`$", re.DOTALL)
_STEP = re.compile(r"\.[^.\[\]]+|\[[^\[\]]*\]")


def unknown_fields(content: object, kind: type[object]) -> Iterator[tuple[str, str]]:
    """Each field of decoded JSON that the type does not have, with its place as msgspec writes it (``$.steps[0]``).

    Args:
        content: dicts, lists and scalars; it is of that type, except for such fields.
    """
    yield from _unknown(content, kinds.type_info(kind), "$")


def nearest_field(name: str, kind: type[object]) -> str:
    """The field of the document, or of one in it, that is spelled most like ``name``; empty when there is none."""
    near = difflib.get_close_matches(name, sorted(_names(kind)), n=1)
    return near[0] if near else ""


def allowed_values(problem: str, kind: type[object]) -> tuple[str, ...]:
    """What the field may be that msgspec complains about, where that is one of a few words; else nothing.

    Args:
        problem: msgspec's sentence; behind " - at " it names the place (``$.field[0].field``).
    """
    found = _REFUSED.search(problem)
    if found is None:
        return ()
    here = [kinds.type_info(kind)]
    for step in _STEP.findall(found["place"]):
        here = [deeper for one in here for deeper in _deeper(one, step)]
    members = (member for one in here for member in _members(one))
    return tuple(str(value.value) for member in members if isinstance(member, kinds.EnumType) for value in member.cls)


def _members(kind: kinds.Type) -> tuple[kinds.Type, ...]:
    return kind.types if isinstance(kind, kinds.UnionType) else (kind,)


def _deeper(kind: kinds.Type, step: str) -> Iterator[kinds.Type]:
    """The types of a field of that name, or of the elements of an array or object."""
    for member in _members(kind):
        if isinstance(member, kinds.StructType) and step.startswith("."):
            yield from (field.type for field in member.fields if field.encode_name == step[1:])
        elif isinstance(member, kinds.VarTupleType | kinds.ListType):
            yield member.item_type
        elif isinstance(member, kinds.DictType):
            yield member.value_type


def _unknown(content: object, kind: kinds.Type, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(kind, kinds.UnionType):
        kind = _member(content, kind) or kind
    if isinstance(kind, kinds.StructType) and isinstance(content, dict):
        known = {field.encode_name: field.type for field in kind.fields}
        for name, value in content.items():
            if name in known:
                yield from _unknown(value, known[name], f"{place}.{name}")
            elif name != kind.tag_field:
                yield name, place
    elif isinstance(kind, kinds.VarTupleType | kinds.ListType) and isinstance(content, list):
        for number, value in enumerate(content):
            yield from _unknown(value, kind.item_type, f"{place}[{number}]")


def _member(content: object, union: kinds.UnionType) -> kinds.Type | None:
    """The member of a union that the content is: the struct with its tag, or the only one that is not null."""
    tags = content if isinstance(content, dict) else {}
    for member in union.types:
        if isinstance(member, kinds.StructType) and member.tag_field and tags.get(member.tag_field) == member.tag:
            return member
    rest = [member for member in union.types if not isinstance(member, kinds.NoneType)]
    return rest[0] if len(rest) == 1 else None


def _names(kind: type[object]) -> set[str]:
    """The names of all fields of a document and of the documents in it."""
    known: set[str] = set()
    seen: set[type[msgspec.Struct]] = set()
    left: list[kinds.Type] = [kinds.type_info(kind)]
    while left:
        found = left.pop()
        if isinstance(found, kinds.StructType) and found.cls not in seen:
            seen.add(found.cls)
            known |= {field.encode_name for field in found.fields}
            left += [field.type for field in found.fields]
        elif isinstance(found, kinds.UnionType):
            left += found.types
        elif isinstance(found, kinds.VarTupleType | kinds.ListType):
            left.append(found.item_type)
    return known
