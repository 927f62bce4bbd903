"""Deciding about single partitions: what becomes of each, with the maps of the disk before and after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from core.errors import LiferaftError
from core.units import format_size
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, ToPartitions, ToPlan, Wanted
from rescue.tui.screen import WizardScreen
from rescue.tui.text import columns, cut
from rescue.tui.widgets.picker import Picker, Row
from restore.plan.diskmap import bar
from restore.planning.rules import PartitionRule, Rule

if TYPE_CHECKING:
    from restore.planning.draft import DiskDraft, Draft, PartitionDraft

_LIST_KEYS = "Up/Down: choose   Enter: decide, go on   Esc: back"
_CHOICE_KEYS = "Up/Down: choose   Enter: take it   Esc: back to the list"
_WIDTHS = (3, 12, 12, -10, 2, -10, 21)
_ON, _NONE, _AGAIN = "go on", "none", "again"
_CHOICES = {
    _NONE: "As needed: moved or made smaller only where it must be",
    Rule.KEEP: "Keep: start and size stay, whatever happens",
    Rule.GROW: "Grow: takes its share of the space that is left",
    Rule.SHRINK: "Shrink: as small as its content allows",
    Rule.MOVE: "Move: the size stays, the gap before it is closed",
    Rule.DROP: "Leave out: it is not restored",
}
_DECIDED = {
    Rule.KEEP: "keep",
    Rule.GROW: "grow",
    Rule.SHRINK: "shrink",
    Rule.MOVE: "move",
    Rule.DROP: "leave out",
}


class PartitionsScreen(WizardScreen):
    """The list of partitions with the maps, and, for the one that is being decided about, the list of choices.

    Everything is drawn from a draft, which is made anew after each decision: what is seen is what would be planned.
    """

    HEADLINE = "Decide about each partition"
    KEYS = _LIST_KEYS

    class Drafted(Message):
        """The draft with these rules."""

        def __init__(self, draft: Draft) -> None:
            super().__init__()
            self.draft = draft

    def __init__(self, jobs: Jobs, to: ToPartitions) -> None:
        super().__init__(jobs)
        self._to = to
        self._draft: Draft | None = None
        self._rules: dict[str, PartitionRule] = {}
        self._changing = ""
        #: Why there is no draft with the rules as they are now.
        self._unknown = ""

    def body(self) -> Iterable[Widget]:
        point = self._to.point
        text = f"{point.name}, taken {point.created[:16].replace('T', ' ')} UTC. Nothing is written yet."
        yield Static(cut(text, 78), classes="text", markup=False)
        yield Picker()

    def on_mount(self) -> None:
        self._look()

    def on_partitions_screen_drafted(self, message: Drafted) -> None:
        self.finished()
        self._draft = message.draft
        self._unknown = ""
        self._drawn()

    def failed(self, error: LiferaftError) -> None:
        """What was decided stays, and so does the list; only before the first draft there is none."""
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
        if self._changing:
            self._decide(key)
        elif key == _AGAIN:
            self._look()
        elif key == _ON:
            to = self._to
            self.post_message(Go(ToPlan(to.repository, to.point, to.placed, self._wanted())))
        else:
            self._changing = key
            self._show()

    def refused(self, row: Row) -> None:
        if row.key == _ON:
            self._say_reasons()
        elif row.key in dict(self._partitions()):
            self.say("An extended partition is as large as the partitions in it need.")
        else:
            self.say("Choose one of its partitions, or go on.")

    def action_back(self) -> None:
        if self._changing:
            self._leave()
        else:
            super().action_back()

    def _decide(self, choice: str) -> None:
        disk, part = dict(self._partitions())[self._changing]
        self._rules.pop(self._changing, None)
        if choice != _NONE:
            self._rules[self._changing] = PartitionRule(disk=disk.disk, partition=part.was.number, rule=Rule(choice))
        self._leave()
        self._look()

    def _leave(self) -> None:
        """Back from the choices to the list, to the partition that they were for."""
        changed, self._changing = self._changing, ""
        self._show(changed)

    def _wanted(self) -> Wanted:
        wanted = self._to.wanted
        return Wanted(wanted.grow, wanted.verify, tuple(self._rules[key] for key in sorted(self._rules)))

    def _look(self) -> None:
        to, wanted = self._to, self._wanted()
        self.start(
            lambda: self.Drafted(self.jobs.draft(to.repository, to.point.id, to.placed, wanted)),
            "Looking what fits where",
        )

    def _partitions(self) -> Iterator[tuple[str, tuple[DiskDraft, PartitionDraft]]]:
        """Every partition by the key of its row."""
        for disk in self._draft.disks if self._draft is not None else ():
            for part in disk.partitions:
                yield f"{disk.disk}:{part.was.number}", (disk, part)

    def _show(self, at: str = "") -> None:
        """``at``: the row that the cursor goes to; empty: it stays where it is."""
        assert self._draft is not None
        self.keys(_CHOICE_KEYS if self._changing else _LIST_KEYS)
        picker = self.query_one(Picker)
        if self._changing:
            disk, part = dict(self._partitions())[self._changing]
            name = f'{part.was.kind or "unknown"} "{part.was.label}"' if part.was.label else part.was.kind or "unknown"
            header = f"Partition {part.was.number} of {disk.disk}: {name}, {format_size(part.was.size)}"
            now = self._rules.get(self._changing)
            rows = [Row(key, (text,)) for key, text in _CHOICES.items()]
            picker.show(rows, header=header, at=now.rule if now is not None else _NONE)
            return
        rows = [Row(_ON, ("Go on with these partitions",), enabled=not self._draft.reasons)]
        if self._unknown:
            rows = [Row(_AGAIN, ("Look again what fits where",))]
        for disk in self._draft.disks:
            rows.append(_disk_row(disk, known=not self._unknown))
            rows += [self._row(f"{disk.disk}:{part.was.number}", part) for part in disk.partitions]
        picker.show(rows, header=columns(("#", "Holds", "Name", "Was", "", "Becomes", ""), _WIDTHS), at=at)
        self._say_reasons()

    def _row(self, key: str, part: PartitionDraft) -> Row:
        rule = self._rules.get(key)
        words = [_DECIDED[rule.rule]] if rule is not None else []
        words += [part.fate] if part.fate and part.fate not in words and not self._unknown else []
        becomes = format_size(part.will.size) if part.will is not None else "-"
        cells = (
            str(part.was.number),
            part.was.kind or "unknown",
            part.was.label,
            format_size(part.was.size),
            "->",
            "?" if self._unknown else becomes,
            ": ".join(words),
        )
        return Row(key, (columns(cells, _WIDTHS),), enabled=not part.follows)

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


def _disk_row(disk: DiskDraft, *, known: bool) -> Row:
    """A disk with its maps, the second only when it is ``known``; it is no choice."""
    name = disk.node.removeprefix("/dev/") if disk.node.startswith("/dev/") else disk.node.rsplit("/", 1)[-1]
    head = f"{disk.disk}, {format_size(disk.size)}, goes to {name}, {format_size(disk.target_size)}"
    if not disk.partitions:
        return Row(disk.disk, (head, "  It has no partition table, and is restored as it was."), enabled=False)
    becomes = bar(disk.becomes, disk.target_size) if disk.becomes else "(does not fit)"
    becomes = becomes if known else "(not known)"
    return Row(disk.disk, (head, f"was {bar(disk.held, disk.size)}", f"new {becomes}"), enabled=False)
