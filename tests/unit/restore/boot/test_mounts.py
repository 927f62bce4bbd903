"""Mounting a restored system: its fstab and its links decide where in it, and never where in the rescue system."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.errors import LiferaftError, ProcessError
from images.model.filesystem import Filesystem
from images.model.layout import FilesystemKind, Partition, PartitionRole
from restore.boot.held import Held, HeldPartition
from restore.boot.mounts import Absent, MountedSystem, Root, find_root, mount_held, mount_point, mounted_system
from restore.stack.mountable import StackDevice
from tests.runners import ScriptedRunner

FSTAB = "UUID=aa / ext4 defaults 0 1\nUUID=bb /home ext4 defaults 0 2\nUUID=bb /../../outside ext4 defaults 0 2\n"


def partition(number: int, uuid: str) -> HeldPartition:
    made = Partition(
        id=f"part{number}",
        number=number,
        start_lba=2048 * number,
        sector_count=2048,
        type="0x83",
        role=PartitionRole.PRIMARY,
        filesystem=Filesystem(kind=FilesystemKind.EXT4, uuid=uuid, label="data"),
    )
    return HeldPartition(partition=made, disk="/dev/disk", partuuid=f"1234abcd-{number:02x}")


def test_links_and_dots_do_not_lead_out_of_the_system(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"

    def answer(argv: tuple[str, ...]) -> str:
        if argv[:2] == ("mount", "/dev/one"):
            root = Path(argv[2])
            (root / "etc").mkdir()
            (root / "etc/fstab").write_text(FSTAB)
            (root / "home").symlink_to(elsewhere)
            (root / "run").symlink_to("/var/run")
        return ""

    runner = ScriptedRunner(answer)
    nodes: dict[str, Held] = {"/dev/one": partition(1, "aa"), "/dev/two": partition(2, "bb")}
    with mounted_system(Root("/dev/one"), nodes, runner) as mounted:
        root = mounted.root
        places = {call[-1] for call in runner.calls if call[0] == "mount"}
        assert places >= {str(root / "outside"), str(root) + str(elsewhere), str(root / "var/run")}
        assert all(place.startswith(str(root)) and ".." not in place for place in places)
    assert not elsewhere.exists()


@pytest.mark.parametrize("other", [False, True])
def test_a_btrfs_on_an_array_is_known_by_what_its_link_leads_to(other: bool, tmp_path: Path) -> None:
    (tmp_path / "md127").touch()
    (tmp_path / "md").mkdir()
    node = tmp_path / "md" / "root"
    node.symlink_to("../md127")
    held = StackDevice(
        id="array", filesystem=Filesystem(kind=FilesystemKind.BTRFS), names=(), modules=frozenset({"raid1"})
    )
    # findmnt(8) gives the kernel's name, with the subvolume in brackets.
    source = f"{tmp_path}/sdb1\n" if other else f"{tmp_path}/md127[/@]\n"
    runner = ScriptedRunner(lambda argv: source if argv[0] == "findmnt" else "")
    with pytest.raises(LiferaftError, match="same UUID") if other else contextlib.nullcontext():
        with mount_held(str(node), held, tmp_path, runner):
            pass


@contextlib.contextmanager
def system(fstab: str, *broken: str) -> Iterator[tuple[MountedSystem, ScriptedRunner]]:
    """A system on /dev/one, with /dev/two beside it; what is broken cannot be mounted."""

    def answer(argv: tuple[str, ...]) -> str:
        if argv[0] == "mount" and argv[-2] in broken:
            # mount(8), "EXIT STATUS".
            raise ProcessError(argv, 32, "mount: wrong fs type, bad option, bad superblock")
        if argv[:2] == ("mount", "/dev/one"):
            (Path(argv[2]) / "etc").mkdir()
            (Path(argv[2]) / "etc/fstab").write_text("UUID=aa / ext4 defaults 0 1\n" + fstab)
        return ""

    runner = ScriptedRunner(answer)
    nodes: dict[str, Held] = {"/dev/one": partition(1, "aa"), "/dev/two": partition(2, "bb")}
    with mounted_system(Root("/dev/one"), nodes, runner) as mounted:
        yield mounted, runner
    ups = [call[-1] for call in runner.calls if call[0] == "mount" and call[-2] not in broken]
    assert sorted(ups) == sorted(call[-1] for call in runner.calls if call[0] == "umount")


@pytest.mark.parametrize("place", ["/data", "/boot", "/usr"])
def test_a_place_that_cannot_be_mounted_is_absent_with_the_reason(place: str) -> None:
    with system(f"UUID=bb {place} auto nofail 0 0\nUUID=cc /far ext4 defaults 0 0\n", "/dev/two") as (mounted, _):
        reason = "mount failed with exit code 32: mount: wrong fs type, bad option, bad superblock"
        assert set(mounted.absent) == {Absent(place, "UUID=bb", reason), Absent("/far", "UUID=cc")}
        assert [absent.place for absent in mounted.lacking] == [place] * (place != "/data")
        assert mounted.nodes == {"/": "/dev/one"}


def test_a_place_that_is_a_file_is_absent() -> None:
    with system("UUID=bb /etc/fstab ext4 defaults 0 0\n") as (mounted, _):
        (absent,) = mounted.absent
        assert absent.place == "/etc/fstab" and "File exists" in absent.reason


@pytest.mark.parametrize(("place", "mounts"), [("/backup", False), ("/boot/efi", True), ("/boot", True)])
def test_what_is_mounted_on_demand_is_left_alone_unless_it_is_for_the_boot(place: str, mounts: bool) -> None:
    with system(f"UUID=bb {place} ext4 noauto 0 0\n") as (mounted, runner):
        assert (place in mounted.nodes) is mounts
        assert any("/dev/two" in call for call in runner.calls) is mounts
        assert mounted.absent == ()


def test_a_label_of_two_is_mounted_by_guess_never() -> None:
    with system("LABEL=data /boot ext4 defaults 0 0\n") as (mounted, _):
        assert mounted.absent == (Absent("/boot", "LABEL=data", "/dev/one, /dev/two are all called so"),)
        assert mounted.lacking == mounted.absent


def test_a_partition_of_a_dos_table_is_found_by_its_number() -> None:
    with system("PARTUUID=1234ABCD-02 /boot ext4 defaults 0 0\n") as (mounted, _):
        assert mounted.nodes == {"/": "/dev/one", "/boot": "/dev/two"}


def test_no_system_is_looked_for_where_no_filesystem_can_be() -> None:
    found = msgspec.structs.replace(
        partition(1, ""), partition=msgspec.structs.replace(partition(1, "").partition, role=PartitionRole.BIOS_BOOT)
    )
    told: list[str] = []
    runner = ScriptedRunner(lambda argv: "")
    assert find_root({"/dev/one": found}, runner, told.append) is None
    assert (told, runner.calls) == ([], [])
    # Any other partition that nobody knows may have one.
    assert find_root({"/dev/two": partition(2, "")}, runner, told.append) is None
    assert "mount" in {call[0] for call in runner.calls}


def test_what_is_still_mounted_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When not even a lazy umount succeeds: what lies there is the restored system."""

    def answer(argv: tuple[str, ...]) -> str:
        if argv[0] == "mount":
            (Path(argv[-1]) / "file").touch()
            return ""
        raise ProcessError(argv, 32, "target is busy")

    held = partition(1, "aa")
    with pytest.raises(ProcessError, match="busy"), mount_point("one-", tmp_path) as folder:
        monkeypatch.setattr(Path, "is_mount", lambda path: path == folder)
        with mount_held("/dev/one", held, folder, ScriptedRunner(answer)):
            pass
    assert (folder / "file").exists()
    with mount_point("two-", tmp_path) as other:
        assert other.parent == tmp_path
    assert not other.exists()
