"""What a restored system waits for is a warning, and a line of the report where another disk of this machine has it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from core.errors import ProcessError
from core.events import ignore
from core.process import Result
from images.fstab import Tag
from restore.boot.awaited import Known
from restore.boot.told import Told
from restore.boot.unmet import tell_unmet
from tests.runners import ScriptedRunner

KNOWN = Known(here=frozenset({(Tag.UUID, "aa")}), left=frozenset({(Tag.UUID, "bb"), (Tag.LABEL, "Data")}))


def _told(root: Path, fstab: str, found: Mapping[str, str], *, needed: tuple[str, ...] = ()) -> Told:
    """Of a system with this fstab, on a machine that has these devices by ``TAG=value``; findfs(8) gives 1 for none."""
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/fstab").write_text(f"UUID=aa / ext4 defaults 0 1\n{fstab}")

    def answer(argv: tuple[str, ...]) -> Result | str:
        assert argv[0] == "findfs"
        return f"{found[argv[1]]}\n" if argv[1] in found else Result(1, "", "findfs: unable to resolve")

    told = Told(ignore)
    tell_unmet(root, KNOWN, needed, ScriptedRunner(answer), told)
    assert (root / "etc/fstab").read_text() == f"UUID=aa / ext4 defaults 0 1\n{fstab}"
    return told


def test_what_nobody_has_is_a_warning_with_the_line_and_the_remedy(tmp_path: Path) -> None:
    told = _told(tmp_path, "UUID=BB /data ext4 defaults 0 2\nLABEL=Data none swap sw 0 0\n", {})
    assert told.actions == []
    mount, swap = told.warnings
    assert mount.startswith("line 2 of /etc/fstab of the restored system mounts /data (UUID=BB), which is not restored")
    assert "add nofail" in mount
    assert swap.startswith("line 3 of /etc/fstab of the restored system uses swap (LABEL=Data)")


def test_what_another_disk_of_this_machine_has_is_told_with_its_device(tmp_path: Path) -> None:
    found = {"UUID=bb": "/dev/sdb1", "LABEL=Data": "/dev/sdc"}
    told = _told(tmp_path, "/dev/disk/by-uuid/BB /data ext4\nLABEL=Data none swap sw\n", found)
    assert told.warnings == []
    assert [node in line for node, line in zip(("/dev/sdb1", "/dev/sdc"), told.actions, strict=True)] == [True, True]
    assert all("leave that disk in the machine" in line for line in told.actions)


@pytest.mark.parametrize("there", [False, True])
def test_a_device_by_its_path_is_looked_for_there(there: bool, tmp_path: Path) -> None:
    node = tmp_path / "mapper" / "mpatha"
    if there:
        node.parent.mkdir()
        node.touch()
    # Only below /dev is a path a device: one that leads out of there stands for any that this machine has or has not.
    spec = f"/dev/mapper/../..{node}"
    told = _told(tmp_path, f"{spec} /data ext4\n", {})
    assert (len(told.warnings), len(told.actions)) == (not there, there)


def test_a_disk_that_is_called_by_its_serial_number_is_told_as_that(tmp_path: Path) -> None:
    (warning,) = _told(tmp_path, "/dev/disk/by-id/ata-NONE_0000-part7 /data ext4\n", {}).warnings
    assert "which is called after its disk" in warning and "name it by its UUID, or add nofail" in warning


def test_a_disk_that_does_not_answer_does_not_end_the_repair(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/fstab").write_text("UUID=bb /data ext4\n")

    def answer(argv: tuple[str, ...]) -> str:
        raise ProcessError(argv, -9, "killed after 120 s")

    told = Told(ignore)
    tell_unmet(tmp_path, KNOWN, (), ScriptedRunner(answer), told)
    (warning,) = told.warnings
    assert "/data" in warning


def test_what_boot_repair_lacks_itself_is_told_once(tmp_path: Path) -> None:
    assert _told(tmp_path, "UUID=bb /boot ext4 defaults 0 2\n", {}, needed=("/boot",)).warnings == []


def test_the_links_of_the_system_are_followed_in_it(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/crypttab").symlink_to("/state/crypttab")
    (tmp_path / "state").mkdir()
    (tmp_path / "state/crypttab").write_text("data UUID=bb none luks\n")
    (warning,) = _told(tmp_path, "", {}).warnings
    assert warning.startswith("line 1 of /etc/crypttab of the restored system opens data (UUID=bb)")
