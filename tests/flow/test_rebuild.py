"""Indexes are made anew from packs alone, past damage."""

import errno
import os
import shutil
import struct
import zlib
from pathlib import Path

import pytest

from core.errors import DamagedError, DeviceError
from core.events import ignore
from images.store.check import Depth, check
from images.store.usage import Limit
from rescue.jobs.check import check_repository
from rescue.jobs.prune import prune_repository, rebuild_repository
from tests.flow.sealed import flip, records
from tests.flow.small import CHUNK, START, access, make, noise_disk, opened, restored, take
from tests.flow.test_check import make_twin


def indexed(folder: Path, *, encrypted: bool = False) -> set[tuple[bytes, bytes, int]]:
    index = opened(folder, encrypted=encrypted).indexes()
    return {(found, place.pack, place.offset) for part in index for found, place in part.entries()}


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "sealed"])
@pytest.mark.parametrize("prove", [False, True])
def test_from_packs_alone(tmp_path: Path, encrypted: bool, prove: bool) -> None:
    folder = make(tmp_path / "repo", encrypted=encrypted)
    disk = noise_disk(tmp_path / "a.img")
    point = take(folder, disk, "a", encrypted=encrypted)
    take(folder, noise_disk(tmp_path / "b.img", changed=(1,)), "b", encrypted=encrypted)
    before = indexed(folder, encrypted=encrypted)
    shutil.rmtree(folder / "indexes")
    (folder / "catalogue.json").unlink()
    given = access(encrypted=encrypted)
    result = rebuild_repository(str(folder), prove=prove, sink=ignore, access=given)
    assert (result.packs, result.indexes, result.warnings) == (2, 1, ())
    assert indexed(folder, encrypted=encrypted) == before
    assert restored(opened(folder, encrypted=encrypted), point) == disk.read_bytes()
    assert check(opened(folder, encrypted=encrypted), Depth(data=True), sink=ignore).damages == ()


@pytest.mark.parametrize("field", [0, 8, 20, 77])
def test_a_broken_header_costs_one_record(tmp_path: Path, field: int) -> None:
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    all_ = list(records(folder))
    victim = all_[7]
    flip(victim.pack, victim.offset + field)
    result = rebuild_repository(str(folder), prove=False, sink=ignore)
    assert f"offset {victim.offset}" in result.warnings[0]
    assert {entry[0] for entry in indexed(folder)} == {found.id for found in all_} - {victim.id}


def test_a_truncated_pack_keeps_what_lies_before_the_cut(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    all_ = list(records(folder))
    victim = all_[7]
    os.truncate(victim.pack, victim.offset + 500)
    result = rebuild_repository(str(folder), prove=False, sink=ignore)
    assert len(result.warnings) == 1
    assert {entry[0] for entry in indexed(folder)} == {found.id for found in all_[:7]}
    # The next capture stores the rest again.
    take(folder, tmp_path / "a.img", "a")
    assert check(opened(folder), Depth(data=True), sink=ignore).damages == ()


def test_a_rotten_payload_is_found_by_data_only(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    victim = list(records(folder))[7]
    flip(victim.pack, victim.offset + 1000)
    assert rebuild_repository(str(folder), prove=False, sink=ignore).warnings == ()
    assert len(rebuild_repository(str(folder), prove=True, sink=ignore).warnings) == 1
    assert victim.id not in {entry[0] for entry in indexed(folder)}


def test_records_inside_a_payload_are_not_believed(tmp_path: Path) -> None:
    """A disk that carries packs of a repository, and a planted one whose content is not its id; then the header before
    it breaks, and the scanner falls into the payload."""
    inner = make(tmp_path / "inner")
    take(inner, noise_disk(tmp_path / "inner.img", seed=8), "inner")
    real = list(records(inner))[3]
    planted = bytearray(real.pack.read_bytes()[real.offset : real.offset + 80 + real.payload_length])
    planted[100] ^= 1
    disk = bytearray(noise_disk(tmp_path / "a.img").read_bytes())
    at = START + 4 * CHUNK + 4096
    disk[at : at + 5000] = planted[:5000]
    # A header that promises a short payload: it fits into the chunk that carries it.
    disk[at + 8 : at + 12] = struct.pack("<I", 4000)
    disk[at + 76 : at + 80] = struct.pack("<I", zlib.crc32(bytes(disk[at : at + 76])))
    (tmp_path / "a.img").write_bytes(disk)
    folder = make(tmp_path / "repo")
    take(folder, tmp_path / "a.img", "a")
    wanted = bytes(disk[START + 4 * CHUNK : START + 5 * CHUNK])
    (carrier,) = [
        found for found in _headers(folder) if found[0].read_bytes()[found[1] + 80 :][: len(wanted)] == wanted
    ]
    flip(carrier[0], carrier[1] + 1)
    result = rebuild_repository(str(folder), prove=False, sink=ignore)
    assert real.id not in {entry[0] for entry in indexed(folder)}
    assert len(result.warnings) == 2
    assert len(indexed(folder)) == len(list(_headers(folder))) - 1


def _headers(folder: Path) -> list[tuple[Path, int]]:
    """Where records begin, by their lengths alone."""
    found = []
    for pack in folder.rglob("*.pack"):
        data, at = pack.read_bytes(), 64
        while at < len(data):
            found.append((pack, at))
            at += 80 + struct.unpack_from("<I", data, at + 8)[0]
    return found


@pytest.mark.parametrize("rotten", [0, 1])
def test_every_copy_is_known_because_one_may_have_rotted(tmp_path: Path, rotten: int) -> None:
    """Contents are not proven here; what prune and repair do afterwards must find the sound copy."""
    folder = make(tmp_path / "repo")
    disk = noise_disk(tmp_path / "a.img")
    point = take(folder, disk, "a")
    make_twin(folder, folder)
    copies = sorted((found for found in records(folder) if found.kind == 0), key=lambda found: (found.id, found.pack))
    flip(copies[rotten].pack, copies[rotten].offset + 80 + 7)
    assert rebuild_repository(str(folder), prove=False, sink=ignore).records == len(list(records(folder)))
    for _ in range(2):
        prune_repository(str(folder), Limit(share=0), dry_run=False, sink=ignore)
    check_repository(str(folder), Depth(data=True), repair=True, sink=ignore)
    assert restored(opened(folder), point) == disk.read_bytes()


def test_a_foreign_pack_is_left_out_and_named(tmp_path: Path) -> None:
    folder, other = make(tmp_path / "repo"), make(tmp_path / "other")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    take(other, noise_disk(tmp_path / "b.img", seed=2), "b")
    (stranger,) = other.rglob("*.pack")
    place = folder / stranger.relative_to(other)
    place.parent.mkdir(exist_ok=True)
    shutil.copy(stranger, place)
    before = indexed(folder)
    result = rebuild_repository(str(folder), prove=False, sink=ignore)
    assert any(stranger.name in warning and "repository id" in warning for warning in result.warnings)
    assert indexed(folder) == before


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its packs would stand in no index any more, and nobody would have said a word."""
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    take(folder, noise_disk(tmp_path / "b.img", seed=5), "b")
    before = indexed(folder)
    sick = next((folder / "packs").iterdir())
    scandir = os.scandir

    def fails(path: str | os.PathLike[str]) -> object:
        if os.fspath(path) == str(sick):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", fails)
        with pytest.raises(DeviceError, match=f"{sick.name} cannot be listed: Input/output error"):
            rebuild_repository(str(folder), prove=False, sink=ignore)
    assert indexed(folder) == before


def test_without_packs_nothing_is_thrown_away(tmp_path: Path) -> None:
    """A share that is not mounted where packs should be must not cost the indexes."""
    folder = make(tmp_path / "repo")
    take(folder, noise_disk(tmp_path / "a.img"), "a")
    (folder / "packs").rename(tmp_path / "elsewhere")
    with pytest.raises(DamagedError, match="no pack"):
        rebuild_repository(str(folder), prove=False, sink=ignore)
    assert len(list((folder / "indexes").iterdir())) == 1
