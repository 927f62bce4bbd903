"""Fields that a document does not have, wherever in it they stand."""

from enum import StrEnum

import msgspec
import pytest

from core.documents import decode_written
from core.errors import UsageError
from core.fields import nearest_field, unknown_fields


class Leaf(msgspec.Struct, frozen=True):
    label: str = ""


class Wipe(msgspec.Struct, frozen=True, tag_field="do", tag="wipe"):
    leaf: Leaf | None = None


class Write(msgspec.Struct, frozen=True, tag_field="do", tag="write"):
    offset: int
    extra: msgspec.Raw = msgspec.Raw(b"{}")


class Paper(msgspec.Struct, frozen=True):
    steps: tuple[Wipe | Write, ...]
    names: dict[str, int] = {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"steps": [], "names": {"anything": 1}}', []),
        ('{"steps": [{"do": "wipe", "leaf": {"label": "x"}}, {"do": "write", "offset": 1, "extra": {"any": 1}}]}', []),
        ('{"steps": [], "stpes": []}', [("stpes", "$")]),
        ('{"steps": [{"do": "wipe", "leaf": null, "leef": 1}]}', [("leef", "$.steps[0]")]),
        ('{"steps": [{"do": "wipe"}, {"do": "wipe", "leaf": {"labell": 1}}]}', [("labell", "$.steps[1].leaf")]),
        # A field of one kind of step is not one of another.
        ('{"steps": [{"do": "wipe", "offset": 1}]}', [("offset", "$.steps[0]")]),
    ],
)
def test_unknown_fields_have_a_place(text: str, found: list[tuple[str, str]]) -> None:
    assert list(unknown_fields(msgspec.json.decode(text), Paper)) == found
    if not found:
        decode_written(text.encode(), Paper, name="paper")
        return
    with pytest.raises(UsageError, match=f"unknown field `{found[0][0]}`"):
        decode_written(text.encode(), Paper, name="paper")


def test_the_nearest_name_is_a_hint() -> None:
    assert nearest_field("labell", Paper) == "label"
    assert nearest_field("ofset", Paper) == "offset"
    assert nearest_field("xyzzy", Paper) == ""
    with pytest.raises(UsageError) as caught:
        decode_written(b'{"steps": [], "namse": {}}', Paper, name="paper")
    assert caught.value.hint == "Is names meant? Nothing was done."


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Painted(msgspec.Struct, frozen=True):
    one: Colour | None = None
    parts: tuple[Wipe | Write | Colour, ...] = ()
    named: dict[str, Colour] = {}
    size: int = 0


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('{"one": "green"}', "It may be red, blue. Nothing was done."),
        ('{"parts": ["red", "gr` - at `$.een"]}', "It may be red, blue. Nothing was done."),
        ('{"named": {"a": "green"}}', "It may be red, blue. Nothing was done."),
        ('{"size": "green"}', "Nothing was done."),
    ],
)
def test_a_word_that_is_none_of_a_few_is_answered_with_those(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        decode_written(text.encode(), Painted, name="p.json")
    assert caught.value.hint == hint
