"""Choosing a target for each disk of a recovery point that has several."""

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from core.units import format_size
from images.model.layout import Disk, Layout
from images.model.machine import Machine, MachineDisk
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Placed, ToAssign
from rescue.tui.options import DEGRADED, OptionsScreen, degraded_rows
from rescue.tui.screens.target import disk_row, short_name
from rescue.tui.text import columns, cut
from rescue.tui.widgets.picker import Picker, Row
from restore.planning.degraded import without_members
from restore.planning.matching import Matching, Score
from restore.target.occupants import occupants_of_disk

_LIST_KEYS = "Up/Down: choose   Enter: change, go on   G, V, C, P: switch   Esc: back"
_CHOICE_KEYS = "Up/Down: choose   Enter: take it   Esc: back to the list"
_WIDTHS = (8, -11, 3, 12, -11, 24)
_ON = "go on"
_AGAIN = "again"
_OUT = "leave out"


class AssignScreen(OptionsScreen):
    """The list of disks with their targets, and, for the one that is being changed, the list of targets."""

    HEADLINE = "Choose the target disks"
    KEYS = _LIST_KEYS
    BINDINGS: ClassVar[list[BindingType]] = [Binding("d", "switch_degraded", show=False)]

    class Matched(Message):
        """The machine was looked at again."""

        def __init__(self, machine: Machine, layout: Layout, matching: Matching) -> None:
            super().__init__()
            self.machine = machine
            self.layout = layout
            self.matching = matching

    def __init__(self, jobs: Jobs, to: ToAssign) -> None:
        super().__init__(jobs, to.repository, to.point)
        self._to = to
        self._layout = to.layout
        self._disks: dict[str, Disk] = {}
        self._targets: dict[str, MachineDisk] = {}
        self._scores: dict[tuple[str, str], Score] = {}
        #: Disk -> node of its target, empty: left out; a disk that is not in it is undecided.
        self._assigned: dict[str, str] = {}
        self._changing = ""

    def body(self) -> Iterable[Widget]:
        point = self._to.point
        text = f"Restore {point.name}, taken {point.created[:16].replace('T', ' ')} UTC:"
        yield Static(cut(text, 78), classes="text", markup=False)
        yield Picker()

    def on_mount(self) -> None:
        self._take(self._to.machine, self._to.layout, self._to.matching)

    def on_assign_screen_matched(self, message: Matched) -> None:
        self.finished()
        self._take(message.machine, message.layout, message.matching)

    def _take(self, machine: Machine, layout: Layout, matching: Matching) -> None:
        self._layout = layout
        self._disks = {disk.id: disk for disk in layout.disks}
        self._targets = {disk.node: disk for disk in machine.disks}
        self._scores = {(score.disk, score.node): score for score in matching.scores}
        self._assigned = self._decided_before()
        # What a person has decided is not replaced in silence: such a disk is theirs to give a target again.
        lost = [disk for disk in self._disks if disk in self.decided.assigned and disk not in self._assigned]
        taken = set(self._assigned.values())
        for pair in matching.pairs:
            if pair.candidate.node not in taken and pair.disk not in lost:
                self._assigned.setdefault(pair.disk, pair.candidate.node)
        # Targets that are shown for a disk may be others now.
        self._leave()
        said = [f"The target of {', '.join(lost)} is gone, in use, or another disk now: choose again."] if lost else []
        said += [f"Check what goes where: {matching.doubts[0]}."] if matching.doubts else []
        if said:
            self.say(" ".join(said), warning=True)

    def _decided_before(self) -> dict[str, str]:
        """What was decided when the person was here before; not for a target that is another disk now, or in use."""
        found: dict[str, str] = {}
        for disk, target in self.decided.assigned.items():
            if target is None:
                found[disk] = ""
                continue
            now = self._targets.get(target.node, target)
            free = target.node in self._targets and not now.obstacles and not self._against(disk, now.node)
            if free and (now.identity, now.size) == (target.identity, target.size):
                found[disk] = now.node
        return found

    def chosen(self, key: str) -> None:
        if self._changing:
            self._decide(key)
            return
        if key == _ON:
            self._go_on()
        elif key == _AGAIN:
            self._look_again()
        elif key == DEGRADED:
            self.action_switch_degraded()
        elif not self.switch(key):
            self._changing = key
            self._show()

    def refused(self, row: Row) -> None:
        if row.key == _ON:
            self.say("Choose a target for each disk first, or leave it out.", warning=True)
            return
        why = self._targets[row.key].obstacles or (self._against(self._changing, row.key),)
        self.say(f"{row.key} cannot be the target: {'; '.join(why)}.", warning=True)

    def action_back(self) -> None:
        if self._changing:
            self._leave()
        else:
            super().action_back()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The switches' keys are for the list that shows them."""
        return not (self._changing and action.startswith("switch_"))

    def switched(self) -> None:
        self._show()

    def action_switch_degraded(self) -> None:
        if self._without():
            self.decided.degraded = not self.decided.degraded
            self.switched()

    def _decide(self, key: str) -> None:
        """A target, or none, for the disk that is being changed; a disk that had that target is undecided again."""
        node = "" if key == _OUT else key
        for disk in [disk for disk, taken in self._assigned.items() if node and taken == node]:
            del self._assigned[disk]
        self._assigned[self._changing] = node
        made = {disk: self._targets.get(taken) for disk, taken in self._assigned.items()}
        # What was decided for a target that is gone stays so until it is decided anew; that target may come back.
        for disk, target in self.decided.assigned.items():
            if disk not in made and target is not None and target.node not in self._assigned.values():
                made[disk] = target
        self.decided.assigned = made
        self._leave()

    def _leave(self) -> None:
        """Back from the targets to the list, to the disk that they were for."""
        changed, self._changing = self._changing, ""
        self._show(changed)

    def _go_on(self) -> None:
        placed = tuple(Placed(disk, self._targets[node]) for disk, node in sorted(self._assigned.items()) if node)
        self.to_plan(placed)

    def _look_again(self) -> None:
        def look() -> Message:
            machine = self.jobs.probe()
            layout, matching = self.jobs.match(self._to.repository, self._to.point.id, machine)
            return self.Matched(machine, layout, matching)

        self.start(look, "Looking at the disks")

    def _show(self, at: str = "") -> None:
        self.say("")
        self.keys(_CHOICE_KEYS if self._changing else _LIST_KEYS)
        picker = self.query_one(Picker)
        if self._changing:
            changed = self._disks[self._changing]
            rows = [self._target_row(target) for target in self._targets.values()]
            picker.show(
                [*rows, Row(_OUT, ("Leave this disk out",))], header=f"Where {self._changing} goes: {_held(changed)}"
            )
            return
        ready = any(self._assigned.values()) and set(self._assigned) == set(self._disks)
        rows = [
            Row(_ON, ("Go on with these targets",), enabled=ready),
            *(self._disk_row(disk) for disk in self._disks.values()),
            *self.option_rows("a disk"),
            *degraded_rows(self.decided.degraded, self._without()),
            Row(_AGAIN, ("Look again (after attaching a disk)",)),
        ]
        picker.show(rows, header=columns(("Disk", "Size", "", "Goes to", "Size", "Model"), _WIDTHS), at=at)

    def _without(self) -> tuple[str, ...]:
        """What would come of arrays that can do without the disks that are left out."""
        out = [disk for disk in self._disks if self._assigned.get(disk) == ""]
        restored = [disk for disk in self._disks if disk not in out]
        return without_members(self._layout, restored, ()).effects if out and restored else ()

    def _disk_row(self, disk: Disk) -> Row:
        node = self._assigned.get(disk.id)
        target = self._targets.get(node) if node else None
        if target is None:
            words = "left out" if node == "" else "?"
            cells = (disk.id, format_size(disk.size), "->", words, "", "")
            why = "its data is not restored" if node == "" else "not chosen yet: Enter"
        else:
            cells = (
                disk.id,
                format_size(disk.size),
                "->",
                short_name(target),
                format_size(target.size),
                target.identity.model or target.identity.transport,
            )
            why = self._because(disk.id, target.node)
        return Row(disk.id, (columns(cells, _WIDTHS), f"  it held {_held(disk)}", f"  {why}"))

    def _target_row(self, target: MachineDisk) -> Row:
        row = disk_row(target)
        against = self._against(self._changing, target.node)
        if target.obstacles:
            return row
        note = f"  not possible: {against}" if against else f"  {self._because(self._changing, target.node)}"
        return Row(row.key, (*row.lines, note), enabled=not against)

    def _against(self, disk: str, node: str) -> str:
        score = self._scores.get((disk, node))
        return score.against if score else ""

    def _because(self, disk: str, node: str) -> str:
        score = self._scores.get((disk, node))
        if score is None:
            return ""
        return f"{score.points} points: {', '.join(score.reasons) or 'nothing in common'}"


def _held(disk: Disk) -> str:
    """What a captured disk held, in a few words."""
    words = [f'{found.kind} "{found.label}"' if found.label else found.kind for found in occupants_of_disk(disk)]
    return ", ".join(word for word in words if word) or "nothing that was recognised"
