"""The route of a stream: from which repository to which target, and whether it is to go on."""

from collections.abc import Callable

import msgspec

from images.store.repository import Repository
from restore.targets import Target


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
