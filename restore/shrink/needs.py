"""Needs: how many bytes a filesystem needs at least, as its own numbers say it."""

import msgspec


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What one filesystem needs.

    Attributes:
        size: bytes; as much as it has when it cannot be made smaller.
        estimate: its own tool decides only when it works on it, and may want more.
        reason: why it cannot be made smaller, in words for the user; empty when it can.
    """

    size: int
    estimate: bool = False
    reason: str = ""

    @property
    def shrinks(self) -> bool:
        """Whether it can be made smaller at all."""
        return not self.reason
