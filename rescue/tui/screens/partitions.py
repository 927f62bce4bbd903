"""Deciding about single partitions and logical volumes: what becomes of each, with maps before and after."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from core.errors import LiferaftError, UsageError
from core.units import exact_size, format_size, parse_size
from rescue.tui.draft_rows import HEADER, disk_row, group_row, partition_key, partition_row, volume_row
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, ToPartitions, ToPlan, Wanted
from rescue.tui.options import DEGRADED, degraded_rows
from rescue.tui.screen import WizardScreen
from rescue.tui.text import cut
from rescue.tui.widgets.picker import Picker, Row
from restore.planning.rules import PartitionRule, Rule

if TYPE_CHECKING:
    from rescue.tui.decisions import Decisions
    from restore.planning.draft import DiskDraft, Draft, PartitionDraft, VolumeDraft

_LIST_KEYS = "Up/Down: choose   Enter: decide, go on   Esc: back"
_CHOICE_KEYS = "Up/Down: choose   Enter: take it   Esc: back to the list"
_SIZE_KEYS = "Type a size, Enter: take it   Esc: back to the choices"
_ON, _NONE, _AGAIN, _SIZE = "go on", "none", "again", "size"
_CHOICES = {
    _NONE: "As needed: moved or made smaller only where it must be",
    Rule.KEEP: "Keep: start and size stay, whatever happens",
    Rule.GROW: "Grow: takes its share of the space that is left",
    Rule.SHRINK: "Shrink: as small as its content allows",
    _SIZE: "A size that you type: it grows or shrinks to that",
    Rule.MOVE: "Move: the size stays, the gap before it is closed",
    Rule.DROP: "Leave out: it is not restored",
}
_VOLUME_CHOICES = {
    _NONE: "As needed: made smaller only where it must be",
    Rule.GROW: "Grow: takes all the room that its group gains",
}
#: No disk has a size with more characters.
_LONGEST = 16


class PartitionsScreen(WizardScreen):
    """The list of partitions and volumes with the maps, and, for the one that is being decided about, the choices.

    Everything is drawn from a draft, which is made anew after each decision: what is seen is what would be planned.
    """

    HEADLINE = "Decide about each partition"
    KEYS = _LIST_KEYS
    BINDINGS: ClassVar[list[BindingType]] = [Binding("d", "switch_degraded", show=False)]

    class Drafted(Message):
        """The draft with these rules."""

        def __init__(self, draft: Draft) -> None:
            super().__init__()
            self.draft = draft

    def __init__(self, jobs: Jobs, to: ToPartitions) -> None:
        super().__init__(jobs)
        self._to = to
        self._draft: Draft | None = None
        self._changing = ""
        self._typing = False
        #: Rules from an earlier visit that do not count: for what is not among the disks that are restored now.
        self._absent: frozenset[str] = frozenset()
        #: Why there is no draft with the rules as they are now.
        self._unknown = ""

    @property
    def _decided(self) -> Decisions:
        return self.memory.about(self._to.repository, self._to.point.id)

    @property
    def _rules(self) -> dict[str, PartitionRule]:
        return self._decided.rules

    def body(self) -> Iterable[Widget]:
        point = self._to.point
        text = f"{point.name}, taken {point.created[:16].replace('T', ' ')} UTC. Nothing is written yet."
        yield Static(cut(text, 78), classes="text", markup=False)
        yield Picker()
        field = Input(id="size", max_length=_LONGEST, placeholder="40 GiB")
        field.cursor_blink = False
        field.display = False
        yield field

    def on_mount(self) -> None:
        self._look()

    def on_partitions_screen_drafted(self, message: Drafted) -> None:
        self._draft = message.draft
        self._unknown = ""
        absent = frozenset(self._rules) - self._partitions().keys() - self._volumes().keys()
        if absent != self._absent:
            self._absent = absent
            self._look()
            return
        self.finished()
        self._drawn()

    def failed(self, error: LiferaftError) -> None:
        """What was decided stays, and so does the list; only before the first draft there is none."""
        if self._draft is None and self._rules.keys() - self._absent:
            # What was decided on an earlier visit may be the reason. With the list that comes without it, it is tried
            # again, and can be undone.
            self._absent = frozenset(self._rules)
            self._look()
            return
        if self._draft is None:
            super().failed(error)
            return
        self._unknown = error.message
        self._drawn()

    def _drawn(self) -> None:
        """A draft came. Choices that are open stay as they are: a key may be on its way to the row under the cursor."""
        if not self._changing:
            self._show()

    def chosen(self, key: str) -> None:
        if self._typing:
            # The second Enter of a burst that opened the field.
            return
        if self._changing and key == _SIZE:
            self._ask_size()
        elif self._changing:
            self._decide(None if key == _NONE else self._rule(Rule(key)))
        elif key == _AGAIN:
            self._look()
        elif key == DEGRADED:
            self.action_switch_degraded()
        elif key == _ON:
            to, scratch = self._to, self._decided.scratch
            self.post_message(Go(ToPlan(to.repository, to.point, to.placed, self._wanted(), scratch)))
        else:
            self._changing = key
            self._show()

    def refused(self, row: Row) -> None:
        if row.key == _ON:
            self._say_reasons()
        elif row.key in self._partitions():
            self.say("An extended partition is as large as the partitions in it need.")
        else:
            self.say("Choose one of its partitions or volumes, or go on.")

    def action_back(self) -> None:
        if self._typing:
            self._close_size()
        elif self._changing:
            self._leave()
        else:
            super().action_back()

    def action_switch_degraded(self) -> None:
        if self._draft is not None and self._draft.degradable and not self._changing:
            self._decided.degraded = not self._decided.degraded
            self._show()
            self._look()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        if not self._typing:
            return
        try:
            self._decide(self._sized(message.value))
        except UsageError as error:
            self.say(f"{error.message} {error.hint}", warning=True)

    def _sized(self, text: str) -> PartitionRule:
        """The rule for a size that was typed. Raises UsageError."""
        size = parse_size(text)
        _, part = self._partitions()[self._changing]
        if size == 0 or size == part.was.size:
            said = "No partition has 0 bytes." if size == 0 else "It has that size already."
            raise UsageError(said, hint="Type another, or Esc and Keep.")
        return self._rule(Rule.GROW if size > part.was.size else Rule.SHRINK, size)

    def _rule(self, rule: Rule, size: int = 0) -> PartitionRule:
        if self._changing in self._volumes():
            return PartitionRule(volume=self._changing, rule=rule)
        disk, part = self._partitions()[self._changing]
        return PartitionRule(disk=disk.disk, partition=part.was.number, rule=rule, size=size)

    def _decide(self, rule: PartitionRule | None) -> None:
        self._rules.pop(self._changing, None)
        if rule is not None:
            self._rules[self._changing] = rule
        if self._typing:
            self._close_size()
        self._leave()
        self._look()

    def _leave(self) -> None:
        """Back from the choices to the list, to the row that they were for."""
        changed, self._changing = self._changing, ""
        self._show(changed)

    def _ask_size(self) -> None:
        self._typing = True
        _, part = self._partitions()[self._changing]
        now = self._rules.get(self._changing)
        field = self.query_one(Input)
        # Exact: Enter on it, unchanged, decides what was decided before.
        field.value = exact_size(now.size) if now is not None and now.size else ""
        field.display = True
        field.focus()
        self.keys(_SIZE_KEYS)
        self.say(f"It had {format_size(part.was.size)}. Type a size, as 40 GiB, 512 MiB or 1.5 TiB.")

    def _close_size(self) -> None:
        self._typing = False
        self.query_one(Input).display = False
        self.query_one(Picker).focus()
        self.keys(_CHOICE_KEYS)
        self.say("")

    def _wanted(self) -> Wanted:
        wanted, rules = self._to.wanted, self._rules
        made = tuple(rules[key] for key in sorted(rules) if key not in self._absent)
        return msgspec.structs.replace(wanted, rules=made, degraded=self._decided.degraded)

    def _look(self) -> None:
        to, wanted = self._to, self._wanted()
        self.start(
            lambda: self.Drafted(self.jobs.draft(to.repository, to.point.id, to.placed, wanted)),
            "Looking what fits where",
        )

    def _partitions(self) -> dict[str, tuple[DiskDraft, PartitionDraft]]:
        """Every partition by the key of its row."""
        disks = self._draft.disks if self._draft is not None else ()
        return {partition_key(disk, part): (disk, part) for disk in disks for part in disk.partitions}

    def _volumes(self) -> dict[str, VolumeDraft]:
        """Every logical volume by the key of its row."""
        groups = self._draft.groups if self._draft is not None else ()
        return {volume.name: volume for group in groups for volume in group.volumes}

    def _show(self, at: str = "") -> None:
        """``at``: the row that the cursor goes to; empty: it stays where it is."""
        assert self._draft is not None
        self.keys(_CHOICE_KEYS if self._changing else _LIST_KEYS)
        if self._changing:
            self._show_choices()
            return
        known, rules = not self._unknown, self._rules
        rows = [Row(_ON, ("Go on with these partitions",), enabled=not self._draft.reasons)]
        if self._unknown:
            rows = [Row(_AGAIN, ("Look again what fits where",))]
        rows += degraded_rows(self._decided.degraded, self._draft.degradable)
        for disk in self._draft.disks:
            rows.append(disk_row(disk, known=known))
            keys = [partition_key(disk, part) for part in disk.partitions]
            parts = zip(keys, disk.partitions, strict=True)
            rows += [partition_row(key, part, rules.get(key), known=known) for key, part in parts]
        for group in self._draft.groups:
            rows.append(group_row(group, known=known))
            volumes = enumerate(group.volumes, 1)
            rows += [volume_row(number, one, rules.get(one.name), known=known) for number, one in volumes]
        self.query_one(Picker).show(rows, header=HEADER, at=at)
        self._say_reasons()

    def _show_choices(self) -> None:
        """What can be decided about one partition or volume, at what was decided before."""
        now = self._rules.get(self._changing)
        at = _NONE if now is None else _SIZE if now.size else now.rule
        volume = self._volumes().get(self._changing)
        if volume is not None:
            header = f"Volume {volume.name}: {_content(volume.kind, '')}, {format_size(volume.size)}"
        else:
            disk, part = self._partitions()[self._changing]
            held = _content(part.was.kind, part.was.label)
            header = f"Partition {part.was.number} of {disk.disk}: {held}, {format_size(part.was.size)}"
        choices = _CHOICES if volume is None else _VOLUME_CHOICES
        self.query_one(Picker).show([Row(key, (text,)) for key, text in choices.items()], header=header, at=at)

    def _say_reasons(self) -> None:
        if self._unknown:
            self.say(f"What fits where is not known: {self._unknown}", warning=True)
            return
        reasons = self._draft.reasons if self._draft is not None else ()
        if not reasons:
            self.say("")
            return
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        self.say(f"It cannot be so: {reasons[0]}{more}.", warning=True)


def _content(kind: str, label: str) -> str:
    return f'{kind or "unknown"} "{label}"' if label else kind or "unknown"
