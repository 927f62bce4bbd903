"""Proof that a mounted filesystem holds what a stored volume does: every name, fact, attribute and digest.

The stored side is read out of the recovery point again, the other side through the kernel; how the copy was made plays
no part. Sockets are left out, as the copy leaves them out.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from core.errors import DeviceError
from core.units import MIB
from images.browse.entry import Entry, Kind
from images.browse.tree import Found, Tree, Walk, join, shown

_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.FOLDER: stat.S_IFDIR,
    Kind.LINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}
#: What mke2fs and others make in a fresh filesystem without being asked.
_OWN = frozenset({"/lost+found"})
#: How XFS shows root the bytes of an access list, beside the list itself (kernel: fs/xfs/xfs_xattr.c).
_HIDDEN = frozenset({"trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT"})


class _Proof:
    def __init__(self, tree: Tree, folder: Path, advance: Callable[[int], None]) -> None:
        self.compared = 0
        self._tree = tree
        self._walk = Walk(tree)
        self._folder = folder
        self._advance = advance
        #: The stored and the made number of every file with several names.
        self._links: dict[int, int] = {}

    def compare(self) -> None:
        waiting = [self._tree.root]
        while waiting:
            found = waiting.pop()
            self._compare_facts(found)
            if found.entry.kind is Kind.FOLDER:
                waiting += self._compare_names(found)
            elif found.entry.kind is Kind.FILE:
                self._compare_content(found)

    def _place(self, found: Found) -> Path:
        return self._folder / found.path.lstrip("/")

    def _compare_names(self, found: Found) -> list[Found]:
        names = self._walk.names(found)
        children = [self._tree.node(join(found.path, name), node) for name, node, _ in names]
        kept = [child for child in children if child.entry.kind is not Kind.SOCKET]
        wanted = {child.path for child in kept}
        there = {join(found.path, place.name) for place in self._place(found).iterdir()}
        different = sorted((wanted ^ there) - (_OWN - wanted))
        if different:
            raise _differs(different[0], "it is only on one side")
        return kept

    def _compare_facts(self, found: Found) -> None:
        entry, there = found.entry, self._place(found).lstat()
        if stat.S_IFMT(there.st_mode) != _TYPES[entry.kind]:
            raise _differs(found.path, f"it is no {entry.kind}")
        facts = [("owner", entry.uid, there.st_uid), ("group", entry.gid, there.st_gid)]
        facts.append(("time", entry.mtime, there.st_mtime_ns))
        if entry.kind is not Kind.LINK:
            facts.append(("mode", entry.mode, stat.S_IMODE(there.st_mode)))
        if entry.kind in (Kind.CHARACTER, Kind.BLOCK):
            facts.append(("device", os.makedev(entry.major, entry.minor), there.st_rdev))
        if entry.kind is Kind.FILE:
            facts.append(("size", entry.size, there.st_size))
        for name, ours, theirs in facts:
            if ours != theirs:
                raise _differs(found.path, f"its {name} is {theirs}, expected {ours}")
        if entry.kind is Kind.LINK and Path(entry.target) != self._place(found).readlink():
            raise _differs(found.path, "it points elsewhere")
        self._compare_links(found.path, entry, there.st_ino)
        self._compare_attributes(found)

    def _compare_links(self, path: str, entry: Entry, number: int) -> None:
        if entry.kind is Kind.FOLDER or entry.links < 2:
            return
        if entry.kind is Kind.FILE and self._links.setdefault(entry.node, number) != number:
            raise _differs(path, "it is no longer the same file as its other names")

    def _compare_attributes(self, found: Found) -> None:
        ours = {attribute.name: attribute.value for attribute in self._tree.attributes(found)}
        place = self._place(found)
        theirs = {
            name: os.getxattr(place, name, follow_symlinks=False)
            for name in os.listxattr(place, follow_symlinks=False)
            if name not in _HIDDEN
        }
        if ours != theirs:
            names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
            raise _differs(found.path, f"its attribute {shown(names[0])} differs")

    def _compare_content(self, found: Found) -> None:
        content = self._tree.content(found)
        ours, theirs = blake3(), blake3()
        for piece in self._tree.pieces(found, content):
            ours.update(bytes(piece.size) if piece.data is None else piece.data)
        descriptor = os.open(self._place(found), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while data := os.read(descriptor, MIB):
                theirs.update(data)
        finally:
            os.close(descriptor)
        if ours.digest() != theirs.digest():
            raise _differs(found.path, f"its {content.size} bytes do not read back as they were written")
        self.compared += content.size
        self._advance(content.size)


def prove_files(tree: Tree, folder: Path, advance: Callable[[int], None]) -> int:
    """Compare a stored volume with a mounted filesystem.

    Args:
        advance: told of bytes of files that were compared.

    Returns:
        bytes of files that were read back.

    Raises:
        DeviceError: something differs; the message names the path. Reading failed.
    """
    proof = _Proof(tree, folder, advance)
    try:
        proof.compare()
    except OSError as error:
        raise DeviceError(f"{shown(str(error.filename))} cannot be read back: {error.strerror}.") from None
    return proof.compared


def _differs(path: str, how: str) -> DeviceError:
    return DeviceError(f"{shown(path)} is not in the copy as it is in the recovery point: {how}.")
