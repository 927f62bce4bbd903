"""Other people's volumes, file by file, against the trees that other tools saw in them."""

import hashlib
from pathlib import Path

import pytest

from images.browse.entry import Entry, Kind, UnreadableError
from tests.unit.images.browse.shared import DATA, bytes_of, opened, raw_image, read_tree, truth_trees, walk

pytestmark = pytest.mark.skipif(not truth_trees(), reason=f"{DATA} is not here: real inputs of other projects")

#: Other containers and filesystems than those files are read from, and volumes whose names are encrypted.
_NOT_OURS = (".E01.", ".iso.", "iso9660.", "test_disk1.bin")
#: Slow to unpack or read here; the disk ring has its like.
_LARGE = ("ext4-large-directory", "xfs5.vhdx", "ntfs-ramslack", "vss_1_vol", "vss_3_volstor.raw.p2", "lastaccess")
#: exfat-fuse shows what lies behind a file's valid length; the specification (7.6.5) says it reads as zeros.
_BEHIND_VALID_LENGTH = "usual_dir/0.bin.PFILE"
#: The files of NTFS itself are not shown.
_NTFS_ITSELF = frozenset(
    ("$MFT", "$MFTMirr", "$LogFile", "$Volume", "$AttrDef", ".", "$Bitmap", "$Boot", "$BadClus", "$Secure", "$UpCase")
) | {"$Extend"}
_CASES = [name for name in truth_trees() if not any(part in name.name for part in (*_NOT_OURS, *_LARGE))]


@pytest.mark.parametrize("name", _CASES, ids=str)
def test_every_file_is_as_another_tool_saw_it(name: Path, tmp_path: Path) -> None:
    found = raw_image(name, tmp_path)
    if found is None:
        pytest.skip("no tool here makes this image raw")
    with opened(*found) as tree:
        seen = {found.path.lstrip("/"): found for found in walk(tree)}
        truth = [entry for entry in read_tree(name) if str(entry["path"]).split("/")[0] not in _NTFS_ITSELF]
        assert sorted(seen) == sorted(str(entry["path"]) for entry in truth)
        for entry in truth:
            path = str(entry["path"])
            if "sha256" in entry and path != _BEHIND_VALID_LENGTH:
                assert hashlib.sha256(bytes_of(tree, seen[path])).hexdigest() == entry["sha256"], path
            assert _facts(seen[path].entry.owned, entry) == _facts_of(seen[path].entry, entry), path


def _facts(owned: bool, entry: dict[str, object]) -> dict[str, object]:
    """What the other tool says, as far as it can be right: modes and owners of FAT and NTFS are made up."""
    facts = {key: entry[key] for key in ("link", "rdev") if key in entry}
    if owned:
        facts |= {key: entry[key] for key in ("mode", "uid", "gid", "mtime") if key in entry}
    return facts


def _facts_of(entry: Entry, truth: dict[str, object]) -> dict[str, object]:
    kinds = {Kind.FILE: 0o100000, Kind.FOLDER: 0o040000, Kind.LINK: 0o120000, Kind.FIFO: 0o010000}
    kinds |= {Kind.CHARACTER: 0o020000, Kind.BLOCK: 0o060000, Kind.SOCKET: 0o140000}
    facts: dict[str, object] = {
        "link": entry.target,
        "rdev": f"{entry.major}:{entry.minor}",
        "mode": f"0o{kinds[entry.kind] | entry.mode:o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime": entry.mtime // 1_000_000_000,
    }
    wanted = ("link", "rdev", *(("mode", "uid", "gid", "mtime") if entry.owned else ()))
    return {key: facts[key] for key in wanted if key in truth}


def test_encrypted_folders_are_refused_and_the_rest_is_read(tmp_path: Path) -> None:
    name = next((name for name in truth_trees() if "test_disk1.bin" in name.name), None)
    assert name is not None
    found = raw_image(name, tmp_path)
    assert found is not None
    with opened(*found) as tree:
        folder = tree.child(tree.root, "encrypted_dir")
        assert folder is not None
        with pytest.raises(UnreadableError, match="fscrypt"):
            tree.names(folder)
        truth = {str(entry["path"]): entry for entry in read_tree(name)}
        compared = 0
        for found_file in tree.children(tree.root):
            entry = truth[found_file.path.lstrip("/")]
            if "sha256" in entry:
                assert hashlib.sha256(bytes_of(tree, found_file)).hexdigest() == entry["sha256"]
                compared += 1
        assert compared > 3
