"""From lost chunks to the recovery points, volumes and LBA ranges they hit. It knows trees, not files."""

from collections.abc import Iterator

from core.errors import DamagedError
from core.units import covering_sectors
from images.model.extents import Extent
from images.model.manifest import Manifest, Volume
from images.store.findings import Hit
from images.store.pages import FAN_OUT, Page, decode_page, height_for
from images.store.repository import Repository


class HitFinder:
    """Finds where lost ids are used. Each page is read once, and again only where something below it is lost."""

    def __init__(self, repository: Repository, lost: frozenset[bytes]) -> None:
        self._repository = repository
        self._lost = lost
        self._holds: dict[bytes, bool] = {}

    def hits(self, point: str, manifest: Manifest) -> Iterator[Hit]:
        """What of a recovery point is lost, in the order of its volumes."""
        sector_sizes = {device.id: device.sector_size for device in manifest.layout.devices()}
        for volume in manifest.volumes:
            sector = sector_sizes.get(volume.disk, 512)
            for identifier, extent in self._extents(volume):
                first, count = covering_sectors(volume.offset + extent.start, volume.offset + extent.end, sector)
                yield Hit(
                    record=identifier.hex(),
                    point=point,
                    name=manifest.name,
                    volume=volume.id,
                    disk=volume.disk,
                    partition=volume.partition,
                    offset=extent.start,
                    size=extent.size,
                    first_lba=first,
                    sector_count=count,
                )

    def _extents(self, volume: Volume) -> Iterator[tuple[bytes, Extent]]:
        try:
            root, chunks = self._repository.tree_of(volume, volume.id)
        except DamagedError:
            return
        if root is not None:
            for identifier, first, count in self._ranges(root, height_for(chunks), 0):
                size = self._repository.chunk_size
                start, end = first * size, min((first + count) * size, volume.size)
                if start < end:
                    yield identifier, Extent(start, end)

    def _ranges(self, identifier: bytes, level: int, first: int) -> Iterator[tuple[bytes, int, int]]:
        """Lost ids below a page with the first chunk and the number of chunks each takes along."""
        if not self._holds_lost(identifier, level):
            return
        page = None if identifier in self._lost else self._read(identifier, level)
        if page is None:
            yield identifier, first, FAN_OUT ** (level + 1)
            return
        step = FAN_OUT**level
        for slot in sorted(page.ids):
            if level:
                yield from self._ranges(page.ids[slot], level - 1, first + slot * step)
            elif page.ids[slot] in self._lost:
                yield page.ids[slot], first + slot, 1

    def _holds_lost(self, identifier: bytes, level: int) -> bool:
        if identifier in self._lost:
            return True
        known = self._holds.get(identifier)
        if known is None:
            page = self._read(identifier, level)
            if page is None:
                known = True
            elif level:
                known = any(self._holds_lost(child, level - 1) for child in page.ids.values())
            else:
                known = not self._lost.isdisjoint(page.ids.values())
            self._holds[identifier] = known
        return known

    def _read(self, identifier: bytes, level: int) -> Page | None:
        """A page; None when it cannot be read, and everything below it is lost."""
        where = f"page {identifier.hex()[:16]}…"
        try:
            return decode_page(self._repository.read_chunk(identifier, where), level, where)
        except DamagedError:
            return None
