"""Finding repositories: recorded lsblk trees, a runner that mounts by making folders."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from core.documents import encode
from core.errors import ProcessError
from images.store.document import new_document
from rescue.jobs.repositories import AttachedRepositories
from tests.runners import ScriptedRunner


class Recorder(ScriptedRunner):
    """Answers lsblk from a tree; ``mount`` copies a prepared folder to the mount point, ``umount`` empties it."""

    def __init__(self, devices: list[dict[str, Any]], contents: Mapping[str, Path]) -> None:
        super().__init__(self._do)
        self.devices = devices
        self.contents = contents
        self.mounted: dict[str, str] = {}

    def _do(self, argv: tuple[str, ...]) -> str:
        match list(argv):
            case ["lsblk", *_]:
                return json.dumps({"blockdevices": self.devices})
            case ["mount", "-t", _, "-o", _, node, place]:
                if node not in self.contents:
                    raise ProcessError(argv, 32, f"mount: {place}: wrong fs type")
                shutil.copytree(self.contents[node], place, dirs_exist_ok=True)
                self.mounted[place] = node
            case ["umount", place]:
                self.mounted.pop(place, None)
                for entry in list(Path(place).iterdir()) if Path(place).exists() else []:
                    shutil.rmtree(entry)
            case _:
                raise AssertionError(f"not expected: {argv}")
        return ""

    def words(self, program: str) -> list[tuple[str, ...]]:
        return [call for call in self.calls if call[0] == program]


def device(name: str, fstype: str | None = None, *children: dict[str, Any], **more: Any) -> dict[str, Any]:
    kind = more.pop("type", "disk" if children or fstype is None else "part")
    return {
        "name": name,
        "kname": name,
        "type": kind,
        "size": 1 << 30,
        "log-sec": 512,
        "phy-sec": 512,
        "fstype": fstype,
        "mountpoints": [],
        "children": list(children),
        **more,
    }


def make_repository(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "liferaft.json").write_bytes(encode(new_document()))


@pytest.fixture
def contents(tmp_path: Path) -> dict[str, Path]:
    make_repository(tmp_path / "usb" / "company" / "backups")
    (tmp_path / "system" / "etc").mkdir(parents=True)
    make_repository(tmp_path / "system" / "a" / "b" / "c" / "too-deep")
    return {"/dev/sdb1": tmp_path / "usb", "/dev/sda1": tmp_path / "system"}


@pytest.fixture
def tree() -> list[dict[str, Any]]:
    return [
        device(
            "/dev/sda",
            None,
            device("/dev/sda1", "ext4"),
            device("/dev/sda2", "swap"),
            device("/dev/sda3", "crypto_LUKS"),
        ),
        device("/dev/sdb", None, device("/dev/sdb1", "vfat"), model="USB DISK"),
        device("/dev/sdc", "iso9660", type="disk", label="LIFERAFT_1"),
        device("/dev/sdd", None, device("/dev/sdd1", "ntfs")),
    ]


def test_only_what_holds_a_repository_stays_mounted(
    tree: list[dict[str, Any]], contents: dict[str, Path], tmp_path: Path
) -> None:
    runner = Recorder(tree, contents)
    attached = AttachedRepositories(runner, place=tmp_path / "run")
    findings = attached.find()
    own = tmp_path / "run" / str(os.getpid())
    assert [(found.path, found.device, found.points) for found in findings.repositories] == [
        (str(own / "sdb1" / "company" / "backups"), "/dev/sdb1", 0)
    ]
    assert findings.repositories[0].disk == "USB DISK 1.00 GiB"
    assert runner.mounted == {str(own / "sdb1"): "/dev/sdb1"}
    assert [call[5] for call in runner.words("mount")] == ["/dev/sda1", "/dev/sdb1", "/dev/sdd1"]
    attached.close()
    assert runner.mounted == {}
    assert not own.exists()


def test_mounting_never_writes_to_a_disk(tree: list[dict[str, Any]], contents: dict[str, Path], tmp_path: Path) -> None:
    runner = Recorder(tree, contents)
    AttachedRepositories(runner, place=tmp_path / "run").find()
    options = {call[5]: call[4].split(",") for call in runner.words("mount")}
    assert all("ro" in words and "rw" not in words for words in options.values())
    assert "noload" in options["/dev/sda1"]


def test_what_could_not_be_looked_into_is_said(
    tree: list[dict[str, Any]], contents: dict[str, Path], tmp_path: Path
) -> None:
    notes = AttachedRepositories(Recorder(tree, contents), place=tmp_path / "run").find().notes
    assert any("/dev/sda3 is encrypted" in note for note in notes)
    assert any("/dev/sdd1 (ntfs) could not be mounted" in note for note in notes)
    assert not any("sdc" in note for note in notes), "the rescue medium is not looked at"


def test_choosing_one_lets_the_others_go(tree: list[dict[str, Any]], contents: dict[str, Path], tmp_path: Path) -> None:
    make_repository(tmp_path / "system" / "other")
    runner = Recorder(tree, contents)
    attached = AttachedRepositories(runner, place=tmp_path / "run")
    found = attached.find().repositories
    assert len(found) == 2
    attached.keep(found[1].path)
    assert list(runner.mounted.values()) == ["/dev/sdb1"]
    attached.keep("http://server/backups")
    assert runner.mounted == {}


def test_what_can_be_taken_out_is_looked_into_for_what_would_be_lost(
    tree: list[dict[str, Any]], contents: dict[str, Path], tmp_path: Path
) -> None:
    """Of the others, only what is in use stays mounted: here the chosen repository, on a disk that is built in."""
    make_repository(tmp_path / "system" / "other")
    tree[1]["tran"] = "usb"
    tree[1]["children"][0]["partlabel"] = "LIFERAFT-DATA"
    runner = Recorder(tree, contents)
    attached = AttachedRepositories(runner, place=tmp_path / "run")
    chosen = attached.find().repositories[0]
    assert chosen.device == "/dev/sda1"
    looked = len(runner.words("mount"))
    for _ in range(2):
        (found,) = attached.on_removable(chosen.path)
        assert (found.node, found.device, found.partition) == ("/dev/sdb", "/dev/sdb1", "LIFERAFT-DATA")
        assert list(runner.mounted.values()) == ["/dev/sda1"]
        assert Path(chosen.path, "liferaft.json").exists()
    assert {call[5] for call in runner.words("mount")[looked:]} == {"/dev/sdb1"}
    attached.close()


def test_places_that_are_mounted_already_are_looked_at_and_left_alone(tmp_path: Path) -> None:
    make_repository(tmp_path / "mnt" / "backups")
    runner = Recorder([device("/dev/sda", None, device("/dev/sda1", "ext4", mountpoints=[str(tmp_path / "mnt")]))], {})
    attached = AttachedRepositories(runner, place=tmp_path / "run")
    assert [found.path for found in attached.find().repositories] == [str(tmp_path / "mnt" / "backups")]
    attached.close()
    assert runner.words("mount") == runner.words("umount") == []


def test_mounts_of_a_wizard_that_died_are_cleared(tmp_path: Path) -> None:
    stale = tmp_path / "run" / "999999999" / "sda1"
    other = tmp_path / "run" / str(os.getppid()) / "sda2"
    for folder in (stale, other):
        folder.mkdir(parents=True)
    parts = (
        device("/dev/sda1", "ext4", mountpoints=[str(stale)]),
        device("/dev/sda2", "ext4", mountpoints=[str(other)]),
    )
    runner = Recorder([device("/dev/sda", None, *parts)], {})
    AttachedRepositories(runner, place=tmp_path / "run").find()
    assert runner.words("umount") == [("umount", str(stale))]


def test_a_damaged_repository_is_listed_with_its_problem(tmp_path: Path) -> None:
    folder = tmp_path / "mnt"
    folder.mkdir()
    (folder / "liferaft.json").write_text("{}")
    runner = Recorder([device("/dev/sda", None, device("/dev/sda1", "ext4", mountpoints=[str(folder)]))], {})
    found = AttachedRepositories(runner, place=tmp_path / "run").find().repositories
    assert len(found) == 1
    assert "liferaft.json" in found[0].problem


def test_a_mounted_place_is_looked_at_whatever_lsblk_knows_of_it(tmp_path: Path) -> None:
    """Without udev, lsblk names no filesystem."""
    make_repository(tmp_path / "mnt" / "backups")
    make_repository(tmp_path / "medium" / "backups")
    runner = Recorder(
        [
            device("/dev/vda", None, mountpoints=[str(tmp_path / "mnt"), "[SWAP]"]),
            device("/dev/loop0", "squashfs", type="loop", mountpoints=[str(tmp_path / "medium")]),
        ],
        {},
    )
    found = AttachedRepositories(runner, place=tmp_path / "run").find().repositories
    assert [repository.path for repository in found] == [str(tmp_path / "mnt" / "backups")]


def test_an_encrypted_repository_is_found_without_its_passphrase(tree: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "usb" / "backups").mkdir(parents=True)
    (tmp_path / "usb" / "backups" / "liferaft.json").write_bytes(encode(new_document(encrypted=True)))
    attached = AttachedRepositories(Recorder(tree, {"/dev/sdb1": tmp_path / "usb"}), place=tmp_path / "run")
    (found,) = attached.find().repositories
    assert found.encrypted and found.points == 0 and found.problem == ""
    attached.close()
