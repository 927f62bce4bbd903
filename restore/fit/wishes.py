"""Wishes: what a fit is asked for, and what it is told about contents it does not read itself."""

from collections.abc import Callable

import msgspec

from images.model.layout import Partition
from images.model.machine import Firmware
from restore.planning.rules import Growth, PartitionRule, Rule, TableChoice
from restore.planning.seat import Means


def nothing_shrinks(partition: Partition) -> int | str:
    """What is said of the least size when nobody looked, and so nothing is made smaller."""
    return "what its content needs is not known"


def nothing_converts(partition: Partition, old: int, new: int) -> Means | str:
    """What is said of another sector size when nobody looked."""
    return f"the target has sectors of {new} bytes, the source had {old}: this version does not convert between them"


def nothing_boots(partition: Partition) -> bool:
    """What is said of a /boot when nobody looked."""
    return False


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the fit of one disk.

    Attributes:
        growth: who takes the space that is left, where no rule says it.
        rules: of this disk alone.
        firmware: the boot loader will be repaired for it; None: it is left as it was.
        growable: ids of partitions that hold a container which grows with its partition.
        least: bytes the content of a partition needs at least, or why it cannot be made smaller. Asked only when
            something has to be.
        bare: the same without what is only good to have: room for one more kernel. Asked when the other does not fit;
            None where there is no difference.
        boots: whether a partition is a /boot, which is made smaller after all others. Asked only when one has to be.
        conversion: by what means a partition comes to sectors of another size, or the reason why it cannot.
    """

    growth: Growth = Growth.NONE
    rules: tuple[PartitionRule, ...] = ()
    table: TableChoice = TableChoice.KEEP
    firmware: Firmware | None = None
    growable: frozenset[str] = frozenset()
    least: Callable[[Partition], int | str] = nothing_shrinks
    bare: Callable[[Partition], int | str] | None = None
    boots: Callable[[Partition], bool] = nothing_boots
    conversion: Callable[[Partition, int, int], Means | str] = nothing_converts

    @property
    def barely(self) -> "Wishes":
        """The same, content with what the contents need."""
        return msgspec.structs.replace(self, least=self.bare or self.least, bare=None)

    @property
    def grows_into_rest(self) -> bool:
        """Whether anybody takes what is left."""
        rules = any(rule.rule is Rule.GROW and not rule.size for rule in self.rules)
        return self.growth is not Growth.NONE or rules

    @property
    def grows(self) -> bool:
        """Whether anybody takes space, what is left or so much."""
        return self.growth is not Growth.NONE or any(rule.rule is Rule.GROW for rule in self.rules)
