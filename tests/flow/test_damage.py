"""A chunk that is damaged or missing: named, and nothing wrong reaches the target."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import DamagedError, ExitCode
from images.capture import CaptureResult
from images.model.manifest import VolumeRole
from images.store.connect import connect
from images.store.records import PACK_HEADER_SIZE, RECORD_HEADER_SIZE, encode_record
from images.store.repository import Repository, pack_name
from images.store.writer import RepositoryWriter
from tests.flow.disks import MIB, blank, gpt_disk
from tests.flow.test_road import restore

Capture = Callable[[Path], CaptureResult]


@pytest.fixture
def repo(tmp_path: Path, tree: Path, capture: Capture) -> Path:
    capture(gpt_disk(tmp_path / "source.img", tree))
    return tmp_path / "repo"


def _root_chunk(repo: Path) -> tuple[Path, int, int]:
    """Pack, offset and payload length of a chunk in the middle of the root filesystem."""
    opened = Repository(connect(str(repo)))
    manifest = opened.manifest(opened.resolve("latest"))
    volume = next(volume for volume in manifest.volumes if volume.partition == "disk0-part2")
    slots = [slot for slot in opened.slots(volume, "test") if slot.id is not None]
    place = opened.locate(slots[len(slots) // 2].id or b"")
    assert place is not None
    return repo / pack_name(place.pack), place.offset, place.payload_length


@pytest.mark.parametrize("where", ["header", "payload"])
def test_a_damaged_chunk_is_named_and_not_written(where: str, tmp_path: Path, repo: Path) -> None:
    pack, offset, length = _root_chunk(repo)
    at = offset + (4 if where == "header" else RECORD_HEADER_SIZE + length // 2)
    with pack.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 0x40]))
    target = blank(tmp_path / "target.img", 200 * MIB)
    with pytest.raises(DamagedError) as caught:
        restore(repo, target)
    assert caught.value.code is ExitCode.DAMAGED
    for part in ("recovery point", "disk0-part2", "LBA", pack.name, f"offset {offset}"):
        assert part in caught.value.message


def test_a_missing_pack_is_found_before_the_first_write(tmp_path: Path, repo: Path) -> None:
    _root_chunk(repo)[0].unlink()
    target = blank(tmp_path / "target.img", 200 * MIB)
    before = target.read_bytes()
    with pytest.raises(DamagedError, match="is missing"):
        restore(repo, target)
    assert target.read_bytes() == before


def test_a_truncated_pack_is_found_before_the_first_write(tmp_path: Path, repo: Path) -> None:
    pack = _root_chunk(repo)[0]
    with pack.open("r+b") as stream:
        stream.truncate(pack.stat().st_size - 1)
    target = blank(tmp_path / "target.img", 200 * MIB)
    before = target.read_bytes()
    with pytest.raises(DamagedError, match="truncated"):
        restore(repo, target)
    assert target.read_bytes() == before


def test_a_lost_index_names_volume_and_lba(tmp_path: Path, repo: Path) -> None:
    for index in (repo / "indexes").iterdir():
        index.unlink()
    with pytest.raises(DamagedError, match=r"volume disk0-.* is missing from the repository"):
        restore(repo, blank(tmp_path / "target.img", 200 * MIB))


@pytest.mark.parametrize("folder", ["manifests", "indexes"])
def test_one_flipped_bit_in_a_document_is_found(folder: str, tmp_path: Path, repo: Path) -> None:
    path = next((repo / folder).iterdir())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=folder):
        restore(repo, blank(tmp_path / "target.img", 200 * MIB))


def test_swapped_packs_are_found(tmp_path: Path, repo: Path) -> None:
    """Right bytes at the wrong offset: the record there is a good one, but not the one that is wanted."""
    pack, offset, _ = _root_chunk(repo)
    data = bytearray(pack.read_bytes())
    first = bytes(data[PACK_HEADER_SIZE : PACK_HEADER_SIZE + RECORD_HEADER_SIZE])
    data[offset : offset + RECORD_HEADER_SIZE] = first
    pack.write_bytes(data)
    with pytest.raises(DamagedError, match="not the one the index promises"):
        restore(repo, blank(tmp_path / "target.img", 200 * MIB))


def test_the_head_is_a_volume_like_others(repo: Path) -> None:
    opened = Repository(connect(str(repo)))
    manifest = opened.manifest(opened.resolve("latest"))
    assert manifest.volumes[0].role is VolumeRole.HEAD


def test_one_rotten_manifest_does_not_hide_the_others(tmp_path: Path, tree: Path, repo: Path, capture: Capture) -> None:
    rotten = next((repo / "manifests").iterdir())
    good = capture(tmp_path / "source.img").id
    rotten.write_bytes(b"{}")
    (repo / "manifests" / f"._{good}.json").write_bytes(b"what macOS leaves")
    (repo / "indexes" / "._x.index").write_bytes(b"what macOS leaves")
    opened = Repository(connect(str(repo)))
    assert [point.id for point in opened.points()] == [good]
    assert len(opened.read_points()[1]) == 1
    assert opened.resolve(good[:8]) == good
    restore(repo, blank(tmp_path / "target.img", 200 * MIB))


def test_what_a_lost_pack_held_is_stored_again(tmp_path: Path, repo: Path, capture: Capture) -> None:
    _root_chunk(repo)[0].unlink()
    taken = capture(tmp_path / "source.img")
    assert taken.stored > 0
    assert any("is stored again" in warning for warning in taken.warnings)
    restore(repo, blank(tmp_path / "target.img", 200 * MIB))


def test_an_interrupt_inside_a_write_leaves_no_wrong_pack(tmp_path: Path, tree: Path, capture: Capture) -> None:
    """The pack must have exactly the bytes its index promises, or the next capture builds on sand."""
    disk = gpt_disk(tmp_path / "source.img", tree)
    with pytest.MonkeyPatch.context() as patch:
        written = []

        def interrupted(*words: object) -> tuple[bytes, bytes]:
            written.append(words)
            if len(written) == 9:
                raise KeyboardInterrupt
            return encode_record(*words)  # type: ignore[arg-type]

        patch.setattr("images.store.writer.encode_record", interrupted)
        real = RepositoryWriter.put

        def put(self: RepositoryWriter, *words: object) -> None:
            try:
                real(self, *words)  # type: ignore[arg-type]
            except KeyboardInterrupt:
                assert self._stream is not None
                self._stream.write(b"half a record")
                raise

        patch.setattr(RepositoryWriter, "put", put)
        with pytest.raises(KeyboardInterrupt):
            capture(disk)
    repository = Repository(connect(str(tmp_path / "repo")))
    assert repository.check_packs() == {}
    assert repository.indexes().pack_sizes()
    capture(disk)
    restore(tmp_path / "repo", blank(tmp_path / "target.img", 200 * MIB))
