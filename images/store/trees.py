"""Walking the trees of many volumes: every page is read once, however many recovery points share it.

Whoever wants the slots of one volume in order reads them with ``Repository.slots``.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec

from core.errors import DamagedError
from images.model.manifest import Volume
from images.store.pages import FAN_OUT, Page, decode_page, height_for
from images.store.repository import Repository

_THREADS = 4
#: Pages fetched ahead together; each has at most 8 KiB.
_TOGETHER = 64


class VisitedPage(msgspec.Struct, frozen=True):
    """A page of a volume.

    Attributes:
        id: its own. size: bytes.
        first: number of the chunk that its slot 0 begins with.
        page: its slots.
    """

    id: bytes
    size: int
    first: int
    page: Page


class LostPage(msgspec.Struct, frozen=True):
    """A page that cannot be read: everything below it is lost to whoever needs it."""

    id: bytes
    level: int
    first: int
    error: DamagedError


#: Hears of pages that cannot be read; may raise.
OnLost = Callable[[LostPage], None]


def refuse(lost: LostPage) -> None:
    """Whoever needs every page stops at the first that cannot be read."""
    raise lost.error


class TreeWalk:
    """Visits pages, each once over its whole life. Used by one thread; memory is about 100 bytes for each page.

    Attributes:
        pages: visited so far.
    """

    def __init__(self, repository: Repository, on_lost: OnLost = refuse) -> None:
        self._repository = repository
        self._on_lost = on_lost
        self._seen: set[bytes] = set()
        self.pages = 0

    def visit(self, volume: Volume, where: str) -> Iterator[VisitedPage]:
        """The pages of a volume that were not visited before, each before those below it.

        Raises:
            DamagedError: the manifest's root or height does not fit. What is found in pages goes to ``on_lost``.
        """
        root, chunks = self._repository.tree_of(volume, where)
        if root is None:
            return
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="pages") as pool:
            yield from self._visit(pool, [(root, 0)], height_for(chunks), chunks, where)

    def _visit(
        self, pool: ThreadPoolExecutor, wanted: list[tuple[bytes, int]], level: int, chunks: int, where: str
    ) -> Iterator[VisitedPage]:
        """The pages ``wanted`` (id, first chunk), which are all of ``level``, and those below."""
        span: int = FAN_OUT ** (level + 1)
        # A page over the volume's end is looked at for each volume: whether it reaches behind the end depends on it.
        wanted = [(page, first) for page, first in wanted if page not in self._seen or first + span > chunks]
        for start in range(0, len(wanted), _TOGETHER):
            some = wanted[start : start + _TOGETHER]
            pages = pool.map(lambda found: self._read(found[0], found[1], level, chunks, where), some)
            for (identifier, first), found in zip(some, pages, strict=True):
                known = identifier in self._seen
                self._seen.add(identifier)
                if isinstance(found, LostPage):
                    if not known:
                        self._on_lost(found)
                    continue
                if not known:
                    self.pages += 1
                    yield found
                if level:
                    step = FAN_OUT**level
                    below = [(found.page.ids[slot], first + slot * step) for slot in sorted(found.page.ids)]
                    yield from self._visit(pool, below, level - 1, chunks, where)

    def _read(self, identifier: bytes, first: int, level: int, chunks: int, where: str) -> VisitedPage | LostPage:
        try:
            data = self._repository.read_chunk(identifier, f"{where}, page {identifier.hex()[:16]}…")
            page = decode_page(data, level, f"{where}, page {identifier.hex()[:16]}…")
            last = first + max((*page.ids, *page.zeros)) * FAN_OUT**level
            if last >= chunks:
                raise DamagedError(f"{where}: a page names chunk {last}, the volume has {chunks}.")
        except DamagedError as error:
            return LostPage(identifier, level, first, error)
        return VisitedPage(identifier, len(data), first, page)
