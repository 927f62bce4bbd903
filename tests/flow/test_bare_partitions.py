"""Partitions that need no filesystem: GRUB's for BIOS, and Microsoft's reserved one. What is expected is no warning."""

import subprocess
from pathlib import Path

import pytest

from images.model.layout import DiskIdentity
from images.sources import UnreadableSectorsError, open_source
from images.survey import survey_disk

_MIB = 1 << 20
#: GRUB's manual, "BIOS installation"; Microsoft, PARTITION_MSFT_RESERVED_GUID; Discoverable Partitions, Linux data.
_TABLE = """label: gpt
start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649
start=2MiB, size=16MiB, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE
start=18MiB, size=8MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
"""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as stream:
        stream.truncate(32 * _MIB)
    subprocess.run(["sfdisk", "-q", str(path)], input=_TABLE, text=True, check=True)
    with path.open("r+b") as stream:
        stream.seek(_MIB)
        stream.write(b"\x52\xe8\x28\x01" * 1000)
        stream.seek(18 * _MIB)
        stream.write(b"\x52\xe8\x28\x01" * 1000)
    return path


def _expected(disk: Path) -> dict[str, bool]:
    with open_source(disk) as source:
        survey = survey_disk(source, "disk0", DiskIdentity())
    assert all(not volume.used.trusted for volume in survey.volumes)
    return {volume.partition: volume.used.expected for volume in survey.volumes if volume.partition}


def test_they_are_kept_whole_and_are_nothing_to_be_warned_of(disk: Path) -> None:
    assert _expected(disk) == {"disk0-part1": True, "disk0-part2": True, "disk0-part3": False}


def test_one_that_holds_a_filesystem_all_the_same_is_not_bare(disk: Path) -> None:
    subprocess.run(["mke2fs", "-q", "-E", f"offset={2 * _MIB}", str(disk), "16m"], check=True)
    with open_source(disk) as source:
        survey = survey_disk(source, "disk0", DiskIdentity())
    (found,) = (volume for volume in survey.volumes if volume.partition == "disk0-part2")
    assert found.used.trusted


def test_one_that_cannot_be_read_is_told(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: object) -> None:
        raise UnreadableSectorsError("sectors 0 to 8 cannot be read")

    monkeypatch.setattr("images.survey.read_used", fail)
    assert _expected(disk) == {"disk0-part1": False, "disk0-part2": False, "disk0-part3": False}
