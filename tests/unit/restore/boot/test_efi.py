"""EFI system partitions beside that at /boot/efi: which they are, where they are mounted, what is rewritten there."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from core.errors import LiferaftError
from images.model.filesystem import Filesystem
from images.model.layout import FilesystemKind, Partition, PartitionRole
from restore.boot.efi import esp_folder, other_esps
from restore.boot.held import Held, HeldPartition
from restore.boot.mounts import MountedSystem
from restore.unique.references import ESP_PLACES, places_still_old, rewrite_places
from restore.unique.renewal import Renewal, Sort
from tests.runners import ScriptedRunner

OLD, NEW = "7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2a001", "0d5d3cb2-9a1c-4b4e-9d54-000000000002"
RENEWALS = (Renewal(sort=Sort.FILESYSTEM, disk="disk0", number=2, old=OLD, new=NEW, kind=FilesystemKind.EXT4),)
#: As Debian's grub-install writes it on an ESP.
STUB = "search.fs_uuid {root} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"


def _held(disk: str, filesystem: Filesystem | None, role: PartitionRole = PartitionRole.ESP) -> HeldPartition:
    made = Partition(
        id=disk,
        number=1,
        start_lba=2048,
        sector_count=2048,
        type="",
        role=role,
        uuid=UUID(int=1),
        filesystem=filesystem,
    )
    return HeldPartition(partition=made, disk=disk, partuuid="")


FAT = Filesystem(kind=FilesystemKind.FAT32, uuid="ABCD-1234")
NODES: dict[str, Held] = {
    "/dev/a1": _held("/dev/a", FAT),
    "/dev/b1": _held("/dev/b", msgspec.structs.replace(FAT, uuid="ABCD-5678")),
    "/dev/c1": _held("/dev/c", FAT, PartitionRole.PRIMARY),
    "/dev/d1": _held("/dev/d", None),
    # A member of a mirror is repaired through the mirror.
    "/dev/e1": _held("/dev/e", Filesystem(kind=FilesystemKind.UNKNOWN, detail="linux_raid_member")),
}


def _system(root: Path, **places: str) -> MountedSystem:
    for name in ("run", "boot/efi2"):
        (root / name).mkdir(parents=True)
    return MountedSystem(root, (), {"/": "/dev/root", **places})


def _mounting(text: str) -> Callable[[tuple[str, ...]], str]:
    """A partition with one file, which is gone with the mount."""

    def answer(argv: tuple[str, ...]) -> str:
        stub = Path(argv[-1]) / "EFI/debian/grub.cfg"
        if argv[0] == "mount":
            stub.parent.mkdir(parents=True)
            stub.write_text(text)
        return ""

    return answer


def test_the_others_are_those_with_a_filesystem_of_their_own(tmp_path: Path) -> None:
    mounted = _system(tmp_path, **{"/boot/efi": "/dev/a1"})
    assert set(other_esps(mounted, NODES)) == {"/dev/b1"}
    assert set(other_esps(MountedSystem(tmp_path, ()), NODES)) == {"/dev/a1", "/dev/b1"}


def test_what_names_old_identities_on_one_that_is_not_mounted_names_the_new_ones(tmp_path: Path) -> None:
    runner = ScriptedRunner(_mounting(STUB.format(root=OLD)))
    with esp_folder("/dev/b1", _system(tmp_path), runner) as folder:
        # Below the system's root: its own programs have to see it.
        assert folder.parent == tmp_path / "run"
        assert places_still_old(folder, RENEWALS, ESP_PLACES)
        assert rewrite_places(folder, RENEWALS, ESP_PLACES) == ("/EFI/debian/grub.cfg",)
        assert (folder / "EFI/debian/grub.cfg").read_text() == STUB.format(root=NEW)
        assert not places_still_old(folder, RENEWALS, ESP_PLACES)
    assert [call[0] for call in runner.calls] == ["mount", "umount"]
    assert not list((tmp_path / "run").iterdir())


def test_one_that_its_fstab_mounts_is_not_mounted_twice(tmp_path: Path) -> None:
    runner = ScriptedRunner(_mounting(""))
    with esp_folder("/dev/b1", _system(tmp_path, **{"/boot/efi2": "/dev/b1"}), runner) as folder:
        assert folder == tmp_path / "boot/efi2"
    assert runner.calls == []
    with pytest.raises(LiferaftError, match="no /nowhere"):
        with esp_folder("/dev/b1", MountedSystem(tmp_path, (), {"/nowhere": "/dev/b1"}), runner):
            pass
