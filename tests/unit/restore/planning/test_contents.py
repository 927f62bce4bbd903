"""What the fit is told about a LUKS header: one that names the size of its data, as cryptsetup reads it, keeps it."""

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import cast

import pytest

from core.units import MIB
from images.browse.point import VolumeSource
from images.model.filesystem import Filesystem
from images.model.layout import Disk, DiskIdentity, FilesystemKind, Layout
from images.model.manifest import CaptureMode, Manifest, Volume, VolumeRole
from images.model.stack import Luks
from images.sources import BytesSource
from images.stack.luks import read_header
from images.store.repository import Repository
from restore.planning.contents import Contents

TOOL = "/usr/sbin/cryptsetup"
CHEAP = ["--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """20 MiB: a header of 16 MiB, data to the end."""
    if shutil.which(TOOL) is None:
        pytest.skip("cryptsetup is not installed")
    path, key = tmp_path / "volume", tmp_path / "key"
    key.write_bytes(b"a key of the test")
    with path.open("wb") as stream:
        stream.truncate(20 * MIB)
    subprocess.run([TOOL, "luksFormat", *CHEAP, "--type", "luks2", "--key-file", key, path], check=True)
    return path


def fix_size(path: Path, size: int) -> None:
    """Have both headers say a size instead of ``dynamic`` (LUKS2 specification, sections 2.1 and 3.3)."""
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[8:16], "big")
    for start in (0, length):
        area = bytes(content[start : start + length])
        assert area.count(b'"size":"dynamic"') == 1
        changed = bytearray(area.replace(b'"size":"dynamic"', b'"size":"%d"' % size))
        del changed[length:]
        changed.extend(bytes(length - len(changed)))
        changed[448:512] = bytes(64)
        changed[448:480] = hashlib.sha256(changed).digest()
        content[start : start + length] = changed
    path.write_bytes(content)


class _Stored(Contents):
    """Contents whose one volume is the header of a file."""

    def __init__(self, path: Path) -> None:
        header = path.read_bytes()[: 16 * MIB]
        self._header_source = BytesSource(header)
        disk = Disk(id="disk0", identity=DiskIdentity(), size=20 * MIB, sector_size=512)
        luks = Luks(
            id="luks0",
            uuid="u",
            device="disk0",
            version=2,
            payload_offset=16 * MIB,
            size=4 * MIB,
            filesystem=Filesystem(kind=FilesystemKind.SWAP),
        )
        volume = Volume(
            id="disk0",
            disk="disk0",
            role=VolumeRole.DISK,
            offset=0,
            size=16 * MIB,
            root="00",
            height=1,
            allocated=16 * MIB,
            mode=CaptureMode.USED,
        )
        layout = Layout(disks=(disk,), containers=(luks,))
        manifest = Manifest(
            name="n", created="2026", origin="", layout=layout, volumes=(volume,), machine=None, tool="t"
        )
        super().__init__(cast("Repository", None), "00", manifest, disk)

    def open(self, volume: Volume) -> VolumeSource:
        return cast("VolumeSource", self._header_source)


def test_a_header_without_a_size_leaves_it_to_what_lies_inside(container: Path) -> None:
    assert _Stored(container).lessening.least("disk0") == "this version cannot make swap smaller"


def test_a_header_with_a_size_near_that_of_its_device_keeps_it(container: Path) -> None:
    fix_size(container, 4 * MIB - 4096)
    dumped = subprocess.run([TOOL, "luksDump", container], check=True, capture_output=True, text=True).stdout
    assert f"length: {4 * MIB - 4096} [bytes]" in dumped
    assert _Stored(container).lessening.least("disk0") == "its LUKS header says how large it is"


def test_a_header_that_is_damaged_keeps_it(container: Path) -> None:
    content = bytearray(container.read_bytes())
    content[5000] ^= 1
    container.write_bytes(content)
    assert read_header(BytesSource(bytes(content))) is None
    assert _Stored(container).lessening.least("disk0") == "its LUKS header is damaged"
