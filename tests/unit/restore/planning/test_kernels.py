"""Room for kernels, by the names that distributions give them, and where nobody can look.

On real filesystems: tests/flow/test_boot_room.py.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import DamagedError
from core.units import GIB, MIB
from images.browse.entry import Entry, Kind
from images.browse.tree import Found
from images.model.filesystem import FilesystemKind
from restore.planning import kernels
from restore.planning.kernels import Kernels, kernels_on

EXT4 = FilesystemKind.EXT4


class FakeTree:
    """A tree of nested dicts: a number is the size of a file, a text the target of a link."""

    def __init__(self, source: Any) -> None:
        self._nodes: list[Any] = [source.files]
        self._default: str = source.default

    @property
    def root(self) -> Found:
        return self.node("/", 0)

    @property
    def default(self) -> Found:
        found: Found | None = self.root
        for name in self._default.split("/"):
            found = self.child(found, name) if found is not None and name else found
        assert found is not None
        return found

    def node(self, path: str, node: int) -> Found:
        held = self._nodes[node]
        kind = {dict: Kind.FOLDER, int: Kind.FILE, str: Kind.LINK}[type(held)]
        size = held if kind is Kind.FILE else 0
        return Found(path, Entry(node=node, kind=kind, size=size, mode=0, mtime=0, atime=0, ctime=0))

    def names(self, found: Found) -> Iterator[tuple[str, int, None]]:
        for name, held in self._nodes[found.entry.node].items():
            self._nodes.append(held)
            yield name, len(self._nodes) - 1, None

    def child(self, found: Found, name: str) -> Found | None:
        return next((self.node(name, node) for other, node, _ in self.names(found) if other == name), None)


def _source(files: dict[str, Any], size: int = GIB, default: str = "/") -> Any:
    return SimpleNamespace(files=files, size=size, default=default)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        # Debian: links to kernels lie at the top of the root, and are none.
        (
            {
                "vmlinuz": "boot/vmlinuz-6.12",
                "initrd.img": "boot/i",
                "boot": {"vmlinuz-6.12": 5, "initrd.img-6.12": 30},
            },
            Kernels(35),
        ),
        # Fedora's /boot: the rescue image is the largest, and the next one may be.
        (
            {
                "vmlinuz-6.11.4-301.fc41.x86_64": 7,
                "initramfs-6.11.4-301.fc41.x86_64.img": 40,
                "initramfs-0-rescue-4c1b.img": 90,
                "config-6.11.4-301.fc41.x86_64": 1,
                "grub2": {"grub.cfg": 1},
            },
            Kernels(97, boot=True),
        ),
        # Arch, on ext4 and with its root in a subvolume.
        ({"@": {"boot": {"vmlinuz-6.4": 12, "initrd-6.4": 60}}}, Kernels(72)),
        ({"vmlinuz-linux": 14, "initramfs-linux.img": 20, "initramfs-linux-fallback.img": 70}, Kernels(84, boot=True)),
        # A kernel needs no initramfs; an initramfs alone is nothing, nor is a folder of that name.
        ({"vmlinux-6.12": 9}, Kernels(9, boot=True)),
        ({"initrd": 30, "boot": {"grub": {}}}, Kernels()),
        ({"vmlinuz-6.12": {"file": 1}}, Kernels()),
        ({"home": {"vmlinuz-6.12": 9}, "boot": 3}, Kernels()),
        ({}, Kernels()),
    ],
)
def test_one_more_of_the_largest(files: dict[str, Any], wanted: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "Tree", FakeTree)
    assert kernels_on(_source(files), EXT4) == wanted


#: openSUSE's root, with what is no snapshot in subvolumes beside it: two kernels, the second one of a later snapshot.
SNAPPER = {
    "@": {
        "boot": {"grub2": {"i386-pc": {}, "x86_64-efi": {}}},
        ".snapshots": {
            "1": {"snapshot": {"boot": {"vmlinuz-6.4.0-default": 12, "initrd-6.4.0-default": 60}}},
            "2": {"snapshot": {"boot": {"vmlinuz-6.4.9-default": 13, "initrd-6.4.9-default": 61}}},
        },
        "home": {},
    }
}


@pytest.mark.parametrize(
    ("files", "default", "wanted"),
    [
        (SNAPPER, "/@/.snapshots/1/snapshot", Kernels(72)),
        # After a rollback.
        (SNAPPER, "/@/.snapshots/2/snapshot", Kernels(74)),
        (SNAPPER, "/@/home", Kernels()),
        (SNAPPER, "/", Kernels()),
        # A /boot of its own.
        ({"now": {"vmlinuz-linux": 14, "grub": {}}}, "/now", Kernels(14, boot=True)),
    ],
)
def test_the_default_subvolume_is_looked_into(
    files: dict[str, Any], default: str, wanted: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "Tree", FakeTree)
    assert kernels_on(_source(files, default=default), FilesystemKind.BTRFS) == wanted


@pytest.mark.parametrize(("size", "room"), [(400 * MIB, 100 * MIB), (100 * GIB, 128 * MIB)])
def test_where_nobody_can_look_there_may_be_some(size: int, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(source: Any) -> None:
        raise DamagedError("its first folder is damaged")

    monkeypatch.setattr(kernels, "Tree", damaged)
    assert kernels_on(_source({}, size), EXT4) == Kernels(room)
    # Windows and the firmware keep their programs elsewhere.
    assert kernels_on(_source({}, size), FilesystemKind.NTFS) == Kernels()
    assert kernels_on(_source({}, size), FilesystemKind.FAT32) == Kernels()
