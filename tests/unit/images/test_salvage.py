"""Reading over bad sectors: all that can be read, zeros for the rest, an exact map, and a bound on the tries."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DeviceError
from images import salvage
from images.model.extents import Extent, total
from images.salvage import ATTEMPTS, ATTEMPTS_IN_DEAD, Salvage
from images.sources import BytesSource, UnreadableSectorsError

MIB = 1 << 20


class Failing(BytesSource):
    """Sectors that cannot be read, by number; failing reads are counted."""

    def __init__(self, content: bytes, bad: set[int], sector_size: int = 512) -> None:
        super().__init__(content, sector_size)
        self.bad = bad
        self.failures = 0

    def read_at(self, offset: int, length: int) -> bytes:
        data = super().read_at(offset, length)
        first, end = offset // self.sector_size, -(-(offset + length) // self.sector_size)
        if any(sector in self.bad for sector in range(first, end)):
            self.failures += 1
            raise UnreadableSectorsError(f"{length} bytes at {offset}")
        return data


@settings(max_examples=60)
@given(st.sets(st.integers(0, 511), max_size=12), st.sampled_from([512, 4096]))
def test_exactly_the_bad_sectors_are_lost(bad: set[int], sector_size: int) -> None:
    content = bytes(number % 251 + 1 for number in range(512 * 512))
    bad = {sector for sector in bad if sector < len(content) // sector_size}
    source = Failing(content, bad, sector_size)
    told: list[Extent] = []
    reading = Salvage(source, on_loss=told.append)
    found = reading.read_at(0, len(content))
    for sector in range(len(content) // sector_size):
        part = slice(sector * sector_size, (sector + 1) * sector_size)
        assert found[part] == (bytes(sector_size) if sector in bad else content[part])
    assert total(reading.lost()) == len(bad) * sector_size
    assert sorted(told) == list(reading.lost())


def test_a_dead_region_costs_few_tries() -> None:
    """Sector by sector, 16 MiB of a dead disk would be 32768 reads that take seconds each."""
    content = b"\1" * (16 * MIB)
    source = Failing(content, set(range(1 * 2048, 15 * 2048)))
    reading = Salvage(source)
    data = b"".join(reading.read_at(start, MIB) for start in range(0, 16 * MIB, MIB))
    assert reading.lost() == (Extent(MIB, 15 * MIB),)
    assert data == b"\1" * MIB + bytes(14 * MIB) + b"\1" * MIB
    assert source.failures <= 14 + ATTEMPTS + 13 * ATTEMPTS_IN_DEAD


def test_what_was_not_tried_is_lost_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salvage, "SECONDS", -1.0)
    source = Failing(b"\1" * MIB, {5})
    reading = Salvage(source)
    assert reading.read_at(0, MIB) == bytes(MIB)
    assert reading.lost() == (Extent(0, MIB),)
    assert source.failures == 1


def test_a_disk_that_is_gone_is_no_bad_sector() -> None:
    source = Failing(b"\1" * MIB, set(range(2048)))
    with pytest.raises(DeviceError, match="does not answer"):
        Salvage(source, alive=lambda: False).read_at(0, MIB)


def test_a_map_of_very_many_losses_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salvage, "LOST_LIMIT", 10)
    bad = set(range(0, 2000, 50))
    reading = Salvage(Failing(b"\1" * MIB, bad))
    reading.read_at(0, MIB)
    lost = reading.lost()
    assert len(lost) <= 10
    assert all(any(extent.start <= sector * 512 < extent.end for extent in lost) for sector in bad)
