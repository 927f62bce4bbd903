"""export, with cmp, qemu-img, sfdisk and sgdisk as witnesses."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import DamagedError, DeviceError, RefusedError
from core.events import ignore
from images.capture import CaptureResult
from images.store.connect import open_repository
from images.store.repository import pack_name
from rescue.jobs.export import ImageFormat, export_disk
from tests.flow.disks import DISKS, MIB, need, run, table_of

Capture = Callable[[Path], CaptureResult]


@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_is_the_same_as_raw_and_qcow2(kind: str, tmp_path: Path, tree: Path, capture: Capture) -> None:
    need("qemu-img", "sgdisk")
    disk = DISKS[kind](tmp_path / "disk.img", tree)
    capture(disk)
    raw, qcow2 = tmp_path / "out.raw", tmp_path / "out.qcow2"
    result = export_disk(str(tmp_path / "repo"), "latest", raw, image_format=ImageFormat.RAW, sink=ignore)
    export_disk(str(tmp_path / "repo"), "latest", qcow2, image_format=ImageFormat.QCOW2, sink=ignore)
    assert not result.warnings
    # What these disks do not use is zero, so that the image must be equal to the last byte.
    run("cmp", disk, raw)
    run("qemu-img", "check", "-f", "qcow2", qcow2)
    assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk, qcow2)
    if kind != "bare":
        assert table_of(raw) == table_of(disk)
        assert "No problems found" in run("sgdisk", "-v", raw)
    status = raw.stat()
    assert status.st_size == disk.stat().st_size
    assert status.st_blocks * 512 <= disk.stat().st_blocks * 512 + MIB


def test_a_damaged_primary_table_is_made_again_from_the_layout(tmp_path: Path, tree: Path, capture: Capture) -> None:
    need("sgdisk")
    disk = DISKS["gpt"](tmp_path / "disk.img", tree)
    whole = disk.read_bytes()
    with disk.open("r+b") as file:
        file.seek(512 + 16)
        file.write(b"\xff\xff\xff\xff")
    capture(disk)
    raw = tmp_path / "out.raw"
    result = export_disk(str(tmp_path / "repo"), "latest", raw, image_format=ImageFormat.RAW, sink=ignore)
    assert any("primary GPT" in warning for warning in result.warnings)
    assert "No problems found" in run("sgdisk", "-v", raw)
    assert raw.read_bytes() == whole


@pytest.mark.parametrize("image_format", ImageFormat)
def test_a_damaged_chunk_leaves_no_file(
    image_format: ImageFormat, tmp_path: Path, tree: Path, capture: Capture
) -> None:
    capture(DISKS["bare"](tmp_path / "disk.img", tree))
    repository = open_repository(str(tmp_path / "repo"))
    manifest = repository.manifest(repository.resolve("latest"))
    slot = next(slot for slot in repository.slots(manifest.volumes[0], "test") if slot.id is not None)
    assert slot.id is not None
    place = repository.locate(slot.id)
    assert place is not None
    file = tmp_path / "repo" / pack_name(place.pack)
    content = bytearray(file.read_bytes())
    content[place.offset + 90] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedError, match="disk0-whole, bytes 0 to"):
        export_disk(str(tmp_path / "repo"), "latest", tmp_path / "out", image_format=image_format, sink=ignore)
    assert not list(tmp_path.glob("out*"))


def test_what_is_there_is_never_replaced(tmp_path: Path, tree: Path, capture: Capture) -> None:
    capture(DISKS["bare"](tmp_path / "disk.img", tree))
    (tmp_path / "there").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in ("there", "link"):
        with pytest.raises(RefusedError, match="exists already"):
            export_disk(str(tmp_path / "repo"), "latest", tmp_path / name, image_format=ImageFormat.RAW, sink=ignore)
    assert (tmp_path / "there").read_text() == "mine"
    assert not (tmp_path / "nothing").exists()


def test_a_full_disk_is_said_and_leaves_no_file(
    tmp_path: Path, tree: Path, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture(DISKS["bare"](tmp_path / "disk.img", tree))

    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(DeviceError, match="No space left"):
        export_disk(str(tmp_path / "repo"), "latest", tmp_path / "out", image_format=ImageFormat.RAW, sink=ignore)
    assert not list(tmp_path.glob("out*"))
