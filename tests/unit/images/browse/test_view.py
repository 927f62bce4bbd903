"""fstab, and names that no path may have. The lines are in the form of fstab(5)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import DamagedError
from core.events import Meter, Stage, ignore
from images.browse.compare import ChangedChunks, TreeComparison
from images.browse.entry import Attribute, Child, Content, Entry, Kind, inline_content
from images.browse.extract import Extraction
from images.browse.folder import FolderReceiver
from images.browse.tree import Tree, shown
from images.browse.view import whole_volume
from images.sources import BytesSource
from rescue.jobs.browse import walk
from tests.unit.images.browse.shared import PlainVolume


class Invented:
    """A filesystem of one folder with the names a test gives it."""

    root = 0
    name = "invented"
    notes: tuple[str, ...] = ()
    ignores_case = False
    default = "/"

    def __init__(self, names: list[str], targets: dict[str, str] | None = None) -> None:
        self._names = names
        self._targets = targets or {}

    def children(self, node: int) -> Iterator[Child]:
        return (Child(name, number) for number, name in enumerate(self._names, start=1))

    def entry(self, node: int) -> Entry:
        target = self._targets.get(self._names[node - 1], "") if node else ""
        kind = Kind.LINK if target else Kind.FILE if node else Kind.FOLDER
        return Entry(node=node, kind=kind, size=0, mode=0o644, mtime=0, atime=0, ctime=0, target=target)

    def attributes(self, node: int) -> tuple[Attribute, ...]:
        return ()

    def content(self, node: int, stream: str = "") -> Content:
        return inline_content(b"")


def invented(monkeypatch: pytest.MonkeyPatch, names: list[str], targets: dict[str, str] | None = None) -> Tree:
    monkeypatch.setattr("images.browse.tree.open_filesystem", lambda source, name: Invented(names, targets))
    return Tree(PlainVolume(BytesSource(bytes(512))))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/etc", "nul\0", "", "../../x"])
def test_a_name_that_is_no_path_component_is_damage(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = invented(monkeypatch, ["good", name])
    with pytest.raises(DamagedError, match="disk0-part1:/: the folder has an entry named"):
        tree.names(tree.root)


def test_a_name_twice_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = invented(monkeypatch, ["link", "link"])
    with pytest.raises(DamagedError, match="twice"):
        tree.names(tree.root)


def test_links_stay_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = {"up": "../../../good", "far": "/good"}
    view = whole_volume(invented(monkeypatch, ["good", "up", "far"], targets))
    for path in ("/up/", "/far/", "/../good", "/./good"):
        assert view.find(path)[1].path == "/good"


class Looped(Invented):
    """A folder that holds itself, twice."""

    def entry(self, node: int) -> Entry:
        return Entry(node=7, kind=Kind.FOLDER, size=0, mode=0o755, mtime=0, atime=0, ctime=0)


def test_a_folder_in_itself_ends_every_walk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("images.browse.tree.open_filesystem", lambda source, name: Looped(["a", "b"]))
    tree = Tree(PlainVolume(BytesSource(bytes(512))))  # type: ignore[arg-type]
    problems: list[str] = []
    assert len(list(walk(tree, tree.root, problems, deep=True))) == 2
    assert all("in the tree twice" in problem for problem in problems)
    receiver = FolderReceiver(tmp_path, overwrite=False)
    extraction = Extraction(tree, receiver, Meter(ignore, Stage.EXTRACT, 0), 1 << 20)
    extraction.send_inside(tree.root)
    receiver.close()
    assert len(extraction.result.damaged) == 2
    comparison = TreeComparison(tree, tree, ChangedChunks([], 1 << 20), Meter(ignore, Stage.COMPARE, 0))
    assert not list(comparison.differences(tree.root, tree.root))
    assert comparison.problems


def test_names_for_people_have_no_control_characters() -> None:
    assert shown("a\x1b[31mb\n\udcff é漢") == "a\\x1b[31mb\\n\\xff é漢"
