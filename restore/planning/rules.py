"""Rules: what a person decides about single partitions and logical volumes of a recovery point, in the job document and
on the command line. What becomes of them is the business of ``restore.fit`` and ``restore.planning.growing``.
"""

import re
from enum import StrEnum

import msgspec

from core.errors import UsageError
from core.units import parse_size

_RULE = re.compile(r"^(?:(?P<disk>[A-Za-z][\w-]*):)?(?P<partition>\d{1,5})=(?P<rule>[a-z]+)(?::(?P<size>.+))?$")
#: Group and logical volume, in the letters that lvm(8) allows ("VALID NAMES").
_VOLUME = re.compile(r"^[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,126}/[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,126}$")


class Rule(StrEnum):
    """What is to become of a partition. Without a rule it stays as it is, and is moved or made smaller only if it must.

    ``keep``: start and size stay, whatever happens. ``grow``: it takes its share of the space that is left, or grows
    to a size. ``shrink``: it is made as small as its content allows, or shrinks to a size. ``move``: the size stays,
    the gap before it is closed. ``drop``: it is left out.
    """

    KEEP = "keep"
    GROW = "grow"
    SHRINK = "shrink"
    MOVE = "move"
    DROP = "drop"


class PartitionRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rule for one partition, or for one logical volume.

    Attributes:
        partition: its number on the source; 0 in a rule for a volume.
        size: bytes it grows or shrinks to; 0 leaves that to the fit.
        disk: id of the source disk; may be left out when the recovery point has one disk.
        volume: ``group/volume`` instead of a partition: the one of its group that takes the room which the group
            gains. It goes with ``grow`` alone.
    """

    partition: int = 0
    rule: Rule
    size: int = 0
    disk: str = ""
    volume: str = ""

    def __post_init__(self) -> None:
        if self.volume:
            if self.partition or self.disk:
                raise ValueError("a rule is for a partition or for a volume, not for both")
            if not _VOLUME.match(self.volume):
                raise ValueError(f"volume is {self.volume!r}: a logical volume is named group/volume")
            if self.rule is not Rule.GROW or self.size:
                raise ValueError("a logical volume takes the rule grow, without a size: it takes what its group gains")
        elif self.partition < 1:
            raise ValueError(f"partition is {self.partition}: partitions count from 1")
        if self.size < 0:
            raise ValueError(f"size is {self.size} bytes, below 0")
        if self.size and self.rule not in (Rule.GROW, Rule.SHRINK):
            raise ValueError(f"size goes with the rules grow and shrink, not with {self.rule}")


class TableChoice(StrEnum):
    """Which partition table the target gets."""

    KEEP = "keep"
    GPT = "gpt"


class Growth(StrEnum):
    """Who takes the space that a larger disk has: nobody, the last data filesystem that can, or all of them by size."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


def parse_rule(text: str) -> PartitionRule:
    """``3=grow``, ``2=shrink:20G``, ``disk1:5=drop``, ``vg0/root=grow`` to a rule.

    Raises:
        UsageError: the text is not a rule.
    """
    named, _, rule = text.strip().partition("=")
    if "/" in named:
        return _volume_rule(text, named, rule)
    match = _RULE.match(text.strip())
    hint = "Write NUMBER=RULE[:SIZE] with keep, grow, shrink, move or drop, as in 3=grow, 2=shrink:20G or disk1:5=drop."
    if match is None:
        raise UsageError(f"{text!r} is not a rule for a partition.", hint=hint)
    if match["rule"] not in list(Rule):
        raise UsageError(f"{text!r}: {match['rule']} is not a rule.", hint=hint)
    try:
        return PartitionRule(
            partition=int(match["partition"]),
            rule=Rule(match["rule"]),
            size=parse_size(match["size"]) if match["size"] else 0,
            disk=match["disk"] or "",
        )
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}.", hint=hint) from None


def _volume_rule(text: str, volume: str, rule: str) -> PartitionRule:
    hint = "Write GROUP/VOLUME=grow, as in vg0/root=grow."
    if rule not in list(Rule):
        raise UsageError(f"{text!r}: {rule} is not a rule for a logical volume.", hint=hint)
    try:
        return PartitionRule(volume=volume, rule=Rule(rule))
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}.", hint=hint) from None
