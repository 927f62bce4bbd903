"""Names of a group that the machine has already: device-mapper's, not folders of /dev that happen to be called so."""

from pathlib import Path

import msgspec
import pytest

from core.errors import LiferaftError, RefusedError
from images.model.stack import LogicalVolume, VolumeGroup
from restore.stack.lvm import activate_group, check_free
from tests.runners import ScriptedRunner


def volume(name: str, kind: str) -> LogicalVolume:
    return LogicalVolume(id=f"lv-{name}", name=name, uuid=name, size=1 << 20, segments=(kind,))


#: /dev/disk is a folder of every Linux (udev(7)), and a name that LVM takes where the folder is not there.
GROUP = VolumeGroup(
    id="vg0",
    uuid="v",
    name="disk",
    extent_size=4 << 20,
    members=(),
    volumes=(volume("my-root", "linear"), volume("pool", "thin-pool"), volume("one", "thin")),
    backup="",
)


def test_a_folder_of_that_name_is_no_group(tmp_path: Path) -> None:
    # What another mapping, or another group whose name begins so, looks like.
    for name in ("control", "disk-crypt", "disk--one-my--root", "disk"):
        (tmp_path / name).touch()
    check_free(GROUP, tmp_path)
    check_free(GROUP, tmp_path / "none")


@pytest.mark.parametrize("taken", ["disk-my--root", "disk-one", "disk-pool_tdata"])
def test_a_volume_of_that_name_is(taken: str, tmp_path: Path) -> None:
    # A link to nothing is a name, too: udev is late.
    (tmp_path / taken).symlink_to("../dm-99")
    with pytest.raises(LiferaftError, match=f"{taken}: a volume group named disk is active"):
        check_free(GROUP, tmp_path)


def test_volumes_are_known_by_their_mappings() -> None:
    # lvm(8), "VALID NAMES": hyphens are doubled.
    nodes = activate_group(GROUP, {}, ScriptedRunner(lambda argv: ""))
    assert nodes == {"lv-my-root": "/dev/mapper/disk-my--root", "lv-one": "/dev/mapper/disk-one"}


def test_volumes_that_are_not_made_again_are_refused(tmp_path: Path) -> None:
    group = msgspec.structs.replace(GROUP, volumes=(volume("cached", "cache"),))
    with pytest.raises(RefusedError, match="cache"):
        check_free(group, tmp_path)
