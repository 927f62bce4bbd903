"""The route of a stream: from which repository to which target, and whether it is to go on."""

from collections.abc import Callable, Iterator

import msgspec

from core.units import GIB
from images.model.extents import Extent
from images.store.repository import Repository
from restore.target.target import Target

#: Bytes that the kernel zeros or discards at once: it hears nobody meanwhile, and a slow disk takes hours for all.
AT_ONCE = GIB


def go_on() -> None:
    """Nobody wants the work to end."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """What every part of a stream needs.

    Attributes:
        discard: tell the target which ranges nobody needs.
        halt: called between the pieces of the work; raises when it is to end.
    """

    repository: Repository
    target: Target
    discard: bool = True
    halt: Callable[[], None] = go_on

    @property
    def chunk(self) -> int:
        """Bytes of a chunk."""
        return self.repository.chunk_size


def pieces(extent: Extent, halt: Callable[[], None]) -> Iterator[Extent]:
    """An extent in pieces after each of which the work can be stopped; ``halt`` is asked before each."""
    for start in range(extent.start, extent.end, AT_ONCE):
        halt()
        yield Extent(start, min(start + AT_ONCE, extent.end))
