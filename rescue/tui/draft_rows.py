"""A draft as rows of a list: disks and volume groups with their maps, partitions and logical volumes with what becomes
of each. No widget in it.
"""

from collections.abc import Sequence

from core.units import format_size
from images.model.machine import Occupant
from rescue.tui.text import columns, short_node
from rescue.tui.widgets.picker import Row
from restore.plan.diskmap import bar
from restore.planning.draft import DiskDraft, GroupDraft, PartitionDraft, VolumeDraft
from restore.planning.rules import PartitionRule, Rule

_WIDTHS = (3, 12, 12, -10, 2, -10, 21)
_DECIDED = {
    Rule.KEEP: "keep",
    Rule.GROW: "grow",
    Rule.SHRINK: "shrink",
    Rule.MOVE: "move",
    Rule.DROP: "leave out",
}
HEADER = columns(("#", "Holds", "Name", "Was", "", "Becomes", ""), _WIDTHS)


def partition_key(disk: DiskDraft, part: PartitionDraft) -> str:
    """The key of a partition's row."""
    return f"{disk.disk}:{part.was.number}"


def disk_row(disk: DiskDraft, *, known: bool) -> Row:
    """A disk with its maps, the second only when it is ``known``; it is no choice."""
    name, size = short_node(disk.node), format_size(disk.target_size)
    head = f"{disk.disk}, {format_size(disk.size)}, goes to {name}, {size}"
    if not disk.partitions:
        return Row(disk.disk, (head, "  It has no partition table, and is restored as it was."), enabled=False)
    maps = _maps((disk.held, disk.size), (disk.becomes, disk.target_size), known, "(does not fit)")
    return Row(disk.disk, (head, *maps), enabled=False)


def group_row(group: GroupDraft, *, known: bool) -> Row:
    """The same of a volume group."""
    becomes = f"will have {format_size(group.new_size)}" if known and group.new_size else ""
    head = ", ".join(word for word in (f"{group.name} on {group.on}", format_size(group.size), becomes) if word)
    maps = _maps((group.held, group.size), (group.becomes, group.new_size), known, "(left out, or does not fit)")
    return Row(f"group {group.name}", (head, *maps), enabled=False)


def partition_row(key: str, part: PartitionDraft, rule: PartitionRule | None, *, known: bool) -> Row:
    """A partition. ``rule``: what was decided about it; ``known``: what becomes of it."""
    becomes = part.will.size if part.will is not None else 0
    was = part.was
    cells = _cells(str(was.number), was.kind, was.label, (was.size, becomes), _words(rule, part.fate, known), known)
    return Row(key, (cells,), enabled=not part.follows)


def volume_row(number: int, volume: VolumeDraft, rule: PartitionRule | None, *, known: bool) -> Row:
    """A logical volume, below the row of its group, with its number there."""
    name = volume.name.partition("/")[2]
    sizes = (volume.size, volume.new_size)
    return Row(volume.name, (_cells(str(number), volume.kind, name, sizes, _words(rule, volume.fate, known), known),))


def _cells(number: str, kind: str, label: str, sizes: tuple[int, int], words: str, known: bool) -> str:
    was, becomes = sizes
    shown = (format_size(becomes) if becomes else "-") if known else "?"
    return columns((number, kind or "unknown", label, format_size(was), "->", shown, words), _WIDTHS)


def _words(rule: PartitionRule | None, fate: str, known: bool) -> str:
    words = [] if rule is None else ["to size" if rule.size else _DECIDED[rule.rule]]
    words += [fate] if fate and fate not in words and known else []
    return ": ".join(words)


def _maps(
    was: tuple[Sequence[Occupant], int], becomes: tuple[Sequence[Occupant], int], known: bool, none: str
) -> tuple[str, str]:
    new = (bar(*becomes) if becomes[0] else none) if known else "(not known)"
    return f"was {bar(*was)}", f"new {new}"
