"""Following containers: what belongs together is opened once it is complete, and what cannot be followed stays whole.

The members are recorded ones (tests/unit/images/stack/members.py); what would be opened is a file instead.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from core.errors import RefusedError
from images.model.layout import DiskIdentity, Layout
from images.model.manifest import CaptureMode, Manifest, Volume, VolumeRole
from images.model.soundness import check_manifest
from images.model.stack import Array, VolumeGroup
from images.probe import BlockDevice
from images.sources import FileSource, open_source
from images.stack.keys import Keys
from images.stack.luks import Header
from images.stack.lvm_text import Group
from images.stack.opener import NotOpenedError, Opener
from images.stack.strangers import Strangers
from images.survey import DiskSurvey, survey_disk
from images.survey_stack import Follower, Place, StackSurvey
from tests.runners import ScriptedRunner
from tests.unit.images.stack.members import head, member, with_areas


class FileOpener(Opener):
    """Opens files that a test made, by the name of the container; ``log`` is what was asked for."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        super().__init__(ScriptedRunner(lambda argv: '{"blockdevices": []}'), Keys(), lambda event: None)
        self.files = files
        self.log: list[tuple[str, ...]] = []

    def array(self, name: str, uuid: str, nodes: Sequence[str]) -> str:
        self.log.append((name, uuid, *(Path(node).name for node in nodes)))
        if name not in self.files:
            raise NotOpenedError("it does not start")
        return str(self.files[name])

    def luks(self, header: Header, node: str) -> tuple[str, str]:
        raise NotOpenedError("it is encrypted, and no key was given for it")

    def group(self, group: Group, nodes: Sequence[str]) -> dict[str, str]:
        self.log.append((group.name, *(Path(node).name for node in nodes)))
        if group.name not in self.files:
            raise NotOpenedError("LVM does not activate it")
        return {
            volume.name: str(blank(self.files[group.name] / volume.name, volume.size))
            for volume in group.logical
            if volume.visible and "thin-pool" not in volume.segments
        }


def blank(path: Path, size: int) -> Path:
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


class Machine:
    """Members as disks of their own."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.surveys: tuple[DiskSurvey, ...] = ()

    def follow(self, names: Sequence[str], opener: FileOpener, others: tuple[BlockDevice, ...] = ()) -> StackSurvey:
        """Capture these members; ``others`` are devices of the machine beside them."""
        places = []
        for number, name in enumerate(names):
            path = member(name, self._folder)
            survey = survey_disk(self._source(str(path)), f"disk{number}", DiskIdentity())
            self.surveys += (survey,)
            places += [Place(volume=volume, node=str(path)) for volume in survey.volumes]
        strangers = Strangers(others, [place.node for place in places], open_source)
        return Follower(places, opener, self._source, strangers, None).follow()

    def manifest(self, found: StackSurvey) -> Manifest:
        """A manifest as capture would write it, without content."""
        volumes = tuple(
            Volume(
                id=volume.id,
                disk=volume.disk,
                role=volume.role,
                partition=volume.partition,
                offset=volume.offset,
                size=volume.source.size,
                root=None,
                height=0,
                allocated=0,
                mode=CaptureMode.USED,
            )
            for volume in found.volumes
        )
        layout = Layout(disks=tuple(survey.disk for survey in self.surveys), containers=found.containers)
        words = {"tool": "t", "name": "n", "created": "c", "origin": "o"}
        return Manifest(version=2, machine=None, layout=layout, volumes=volumes, **words)

    def _source(self, node: str) -> FileSource:
        return self._stack.enter_context(open_source(Path(node)))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with contextlib.ExitStack() as stack:
        yield Machine(tmp_path, stack)


def test_an_array_is_followed_and_its_members_are_not_kept(machine: Machine, tmp_path: Path) -> None:
    opener = FileOpener({"md0": blank(tmp_path / "array", 238 << 20)})
    found = machine.follow(["vde", "vdc", "vdd"], opener)
    assert opener.log == [("md0", "fbf2ac37:18df7f72:a1e85c92:4408b5c0", "vde", "vdc", "vdd")]
    assert [volume.id for volume in found.volumes] == ["md0"]
    (array,) = found.containers
    assert isinstance(array, Array)
    # As mdadm --examine has it (data/vdd.examine): level, chunk, layout, data offset, component = size / 2.
    assert (array.level, array.chunk_size, array.layout, array.slots) == (5, 65536, "left-symmetric", 3)
    assert [(member.device, member.slot, member.data_offset) for member in array.members] == [
        ("disk0", 2, 1 << 20),
        ("disk1", 0, 1 << 20),
        ("disk2", 1, 1 << 20),
    ]
    assert (array.size, array.component_size) == (238 << 20, 119 << 20)
    check_manifest(machine.manifest(found), "m")


def test_a_group_is_followed_to_its_volumes(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    found = machine.follow(["vdf", "vdg"], FileOpener({"tvg": tmp_path / "volumes"}))
    (group,) = found.containers
    assert isinstance(group, VolumeGroup)
    assert [(volume.id, volume.active, volume.pool) for volume in group.volumes] == [
        ("lvm0-striped", True, ""),
        ("lvm0-pool", False, ""),
        ("lvm0-thin", True, "pool"),
    ]
    assert [(volume.id, volume.role) for volume in found.volumes] == [
        ("lvm0-striped", VolumeRole.DISK),
        ("lvm0-thin", VolumeRole.DISK),
    ]
    check_manifest(machine.manifest(found), "m")


def test_boot_code_before_a_label_is_kept_and_copies_of_the_metadata_are_counted(
    machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "volumes").mkdir()
    path = member("vdf", tmp_path)
    with path.open("r+b") as stream:
        stream.write(with_areas(head("vdf"), 2))
        stream.seek(0)
        stream.write(b"\xeb\x63 boot code")
    first = path.read_bytes()[:512]
    opener = FileOpener({"tvg": tmp_path / "volumes"})
    source = machine._source(str(path))
    machine.surveys = (survey_disk(source, "disk0", DiskIdentity()),)
    other = member("vdg", tmp_path)
    machine.surveys += (survey_disk(machine._source(str(other)), "disk1", DiskIdentity()),)
    places = [
        Place(volume=survey.volumes[0], node=str(node))
        for survey, node in zip(machine.surveys, (path, other), strict=True)
    ]
    found = Follower(places, opener, machine._source, Strangers((), [], open_source), None).follow()
    front = next(volume for volume in found.volumes if volume.disk == "disk0")
    assert (front.source.size, front.source.read_at(0, 512)) == (512, first)
    (group,) = found.containers
    assert isinstance(group, VolumeGroup)
    assert {one.device: one.metadata_areas for one in group.members} == {"disk0": 2, "disk1": 1}
    check_manifest(machine.manifest(found), "m")


def test_what_does_not_open_is_kept_whole_with_the_reason(machine: Machine) -> None:
    found = machine.follow(["vdc", "vdd", "vde", "vdf", "vdg"], FileOpener({}))
    assert found.containers == ()
    assert [(volume.used.trusted, volume.used.reason) for volume in found.volumes] == [
        *[(False, "it does not start")] * 3,
        *[(False, "LVM does not activate it")] * 2,
    ]
    assert [volume.source.size for volume in found.volumes] == [120 << 20] * 3 + [200 << 20] * 2


def test_an_array_that_lacks_a_member_is_followed_and_said(machine: Machine, tmp_path: Path) -> None:
    found = machine.follow(["vdc", "vde"], FileOpener({"md0": blank(tmp_path / "array", 238 << 20)}))
    assert found.warnings == ("the array lab:five has 2 of its 3 devices",)
    (array,) = found.containers
    assert isinstance(array, Array)
    assert [member.slot for member in array.members] == [0, 2]
    check_manifest(machine.manifest(found), "m")


def test_a_group_that_lacks_a_volume_is_kept_whole(machine: Machine) -> None:
    found = machine.follow(["vdg"], FileOpener({}))
    assert [volume.used.reason for volume in found.volumes] == ["the group tvg lacks 1 physical volumes"]


@pytest.mark.parametrize(
    ("named", "other", "kind", "said"),
    [
        (["vdc", "vdd"], "vde", "linux_raid_member", "The array lab:five lies on"),
        (["vdf"], "vdg", "LVM2_member", "The volume group tvg lies on"),
    ],
)
def test_a_part_of_what_belongs_together_is_refused(
    machine: Machine, tmp_path: Path, named: list[str], other: str, kind: str, said: str
) -> None:
    node = str(member(other, tmp_path))
    stranger = BlockDevice(name=node, kname=node, type="disk", size=120 << 20, fstype=kind)
    with pytest.raises(RefusedError, match=said) as caught:
        machine.follow(named, FileOpener({}), (stranger,))
    assert node in caught.value.message
    assert "--part-only" in caught.value.hint


def test_another_array_beside_it_is_no_stranger(machine: Machine, tmp_path: Path) -> None:
    node = str(member("vda2", tmp_path))
    stranger = BlockDevice(name=node, kname=node, type="part", size=366 << 20, fstype="linux_raid_member")
    found = machine.follow(["vdc", "vdd"], FileOpener({}), (stranger,))
    assert [volume.used.reason for volume in found.volumes] == ["it does not start"] * 2
