"""A volume made to harm whoever extracts it: names that are none, in every place where a reader may hand one over."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.events import Meter, Stage, ignore
from images.browse import tree as tree_module
from images.browse.entry import Attribute, Child, Content, Entry, Kind, inline_content
from images.browse.extract import Extraction
from images.browse.folder import FolderReceiver
from images.browse.tree import Tree
from images.sources import BytesSource
from tests.unit.images.browse.shared import PlainVolume

ROOT = 1


def entry(node: int, kind: Kind, target: str = "", streams: tuple[str, ...] = ()) -> Entry:
    return Entry(
        node=node, kind=kind, size=4, mode=0o755, mtime=0, atime=0, ctime=0, target=target, streams=streams, owned=False
    )


class Hostile:
    """A filesystem as its reader would show it: node 1 is the top folder and holds all others."""

    name = "hostile"
    root = ROOT
    ignores_case = False
    default = "/"
    notes: tuple[str, ...] = ()

    def __init__(self, entries: dict[str, Entry], attributes: tuple[Attribute, ...] = ()) -> None:
        self._nodes = {item.node: item for item in entries.values()} | {ROOT: entry(ROOT, Kind.FOLDER)}
        self._names = entries
        self._attributes = attributes

    def children(self, node: int) -> Iterator[Child]:
        if node == ROOT:
            yield from (Child(name, item.node) for name, item in self._names.items())

    def entry(self, node: int) -> Entry:
        return self._nodes[node]

    def attributes(self, node: int) -> tuple[Attribute, ...]:
        return self._attributes

    def content(self, node: int, stream: str = "") -> Content:
        return inline_content(b"evil" if stream else b"good")


def extract(filesystem: Hostile, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was said to be damaged."""
    monkeypatch.setattr(tree_module, "open_filesystem", lambda source, name: filesystem)
    tree = Tree(PlainVolume(BytesSource(bytes(512))))  # type: ignore[arg-type]
    receiver = FolderReceiver(folder, overwrite=True)
    extraction = Extraction(tree, receiver, Meter(ignore, Stage.EXTRACT, 0), 1 << 20)
    try:
        extraction.send_inside(tree.root)
    finally:
        receiver.close()
    return extraction.result.damaged


def test_a_stream_whose_name_is_a_path_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.write_text("mine")
    stream = "x/../../outside"
    entries = {"file:x": entry(2, Kind.FOLDER), "file": entry(3, Kind.FILE, streams=(stream, "fine"))}
    damaged = extract(Hostile(entries), folder, monkeypatch)
    assert outside.read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == ["file", "file:fine", "file:x"]
    assert len(damaged) == 1
    assert stream in damaged[0]


@pytest.mark.parametrize(
    ("bad", "attribute"),
    [
        (entry(2, Kind.FILE, streams=("a\0b",)), "user.fine"),
        (entry(2, Kind.LINK, target="a\0b"), "user.fine"),
        (entry(2, Kind.FILE), "user.a\0b"),
    ],
    ids=["stream", "link", "attribute"],
)
def test_a_nul_is_damage_of_the_one_that_has_it(
    bad: Entry, attribute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {"bad": bad, "good": msgspec.structs.replace(entry(3, Kind.FILE))}
    damaged = extract(Hostile(entries, (Attribute(attribute, b"1"),)), tmp_path, monkeypatch)
    assert (tmp_path / "good").read_bytes() == b"good"
    assert damaged
    assert all("\\x00" in sentence for sentence in damaged)
