"""The lab's own eyes: a comparison that cannot see a change would prove nothing."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.boot.compare import Facts, differences_between, read_tree


def _plant(root: Path) -> None:
    (root / "etc").mkdir(parents=True)
    (root / "boot/grub").mkdir(parents=True)
    (root / "boot/initrd.img-6.12").write_bytes(b"initrd")
    (root / "etc/fstab").write_text("UUID=1 / ext4 defaults 0 1")
    (root / "etc/link").symlink_to("fstab")
    with (root / "etc/holes").open("wb") as stream:
        stream.seek(1 << 20)
        stream.write(b"data")
        stream.truncate(3 << 20)
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, ns=(0, 1_000_000_007), follow_symlinks=False)


def _flip(root: Path) -> None:
    path = root / "etc/fstab"
    path.write_text(path.read_text().replace("1 /", "2 /"))
    os.utime(path, ns=(0, 1_000_000_007))


def _flip_in_sparse(root: Path) -> None:
    with (root / "etc/holes").open("r+b") as stream:
        stream.seek((1 << 20) + 2)
        stream.write(b"X")
    os.utime(root / "etc/holes", ns=(0, 1_000_000_007))


def _relink(root: Path) -> None:
    (root / "etc/link").unlink()
    (root / "etc/link").symlink_to("holes")
    os.utime(root / "etc/link", ns=(0, 1_000_000_007), follow_symlinks=False)
    os.utime(root / "etc", ns=(0, 1_000_000_007))


def _tag(root: Path) -> None:
    os.setxattr(root / "etc/fstab", "user.tag", b"x")


def _hide(root: Path) -> None:
    (root / "etc/fstab").chmod(0o000)


@pytest.mark.parametrize(
    ("change", "path", "what"),
    [
        (_flip, "etc/fstab", "content"),
        (_flip_in_sparse, "etc/holes", "content"),
        (_relink, "etc/link", "content"),
        (_tag, "etc/fstab", "attributes"),
        (_hide, "etc/fstab", "mode"),
    ],
)
def test_every_change_is_seen(tmp_path: Path, change: Callable[[Path], None], path: str, what: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    _plant(old)
    _plant(new)
    assert not differences_between(_settled(old), _settled(new), (), (), inodes=False)
    change(new)
    found = differences_between(_settled(old), _settled(new), ("boot/*",), (), inodes=False)
    assert [(difference.path, difference.what, difference.allowed) for difference in found] == [(path, what, False)]


def test_what_boot_repair_rewrites_is_shown_but_allowed(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    _plant(old)
    _plant(new)
    (new / "boot/initrd.img-6.12").write_bytes(b"another")
    (new / "etc/conf.d").mkdir()
    found = differences_between(_settled(old), _settled(new), ("boot/initrd.img-*",), ("etc",), inodes=False)
    assert {difference.path: difference.allowed for difference in found} == {
        "boot/initrd.img-6.12": True,
        "etc": True,
        "etc/conf.d": False,
    }


def _settled(root: Path) -> dict[str, Facts]:
    """The tree without its own top, whose time depends on the test's folder."""
    facts = read_tree(root)
    del facts["."]
    return facts
