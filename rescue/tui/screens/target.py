"""Choosing the target disk, and how to restore to it."""

from collections.abc import Iterable

from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from core.units import format_size
from images.model.layout import Layout
from images.model.machine import Machine, MachineDisk
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, Placed, ToAssign, ToTarget
from rescue.tui.options import OptionsScreen
from rescue.tui.text import columns, cut, short_node
from rescue.tui.widgets.picker import Picker, Row
from restore.planning.matching import Matching

_WIDTHS = (9, -11, 26, 24)
_AGAIN = "again"


class TargetScreen(OptionsScreen):
    """Disks and switches. The machine is probed now, when the repository's disk is mounted and so guarded."""

    HEADLINE = "Choose the target disk"
    KEYS = "Up/Down: choose   Enter: go on, switch   G, V, C, P: switch   Esc: back"

    class Probed(Message):
        """The machine was looked at, and matched with the recovery point."""

        def __init__(self, machine: Machine, layout: Layout | None = None, matching: Matching | None = None) -> None:
            super().__init__()
            self.machine = machine
            self.layout = layout
            self.matching = matching

    def __init__(self, jobs: Jobs, to: ToTarget) -> None:
        super().__init__(jobs, to.repository, to.point)
        self._to = to
        self._disks: dict[str, MachineDisk] = {}

    def body(self) -> Iterable[Widget]:
        point = self._to.point
        size = format_size(point.disk_size)
        text = f"Restore {point.name}, taken {point.created[:16].replace('T', ' ')} UTC, a disk of {size}, to:"
        yield Static(cut(text, 78), classes="text", markup=False)
        yield Picker()

    def on_screen_resume(self) -> None:
        self._probe()

    def on_target_screen_probed(self, message: Probed) -> None:
        self.finished()
        layout, to = message.layout, self._to
        if layout is not None and len(layout.disks) > 1 and message.matching is not None:
            found = ToAssign(to.repository, to.point, message.machine, layout, message.matching)
            self.post_message(Go(found, replace=True))
            return
        self._disks = {disk.node: disk for disk in message.machine.disks}
        self._show()
        if not any(not disk.obstacles for disk in self._disks.values()):
            self.say("No disk of this machine can be the target. The reasons are in the list.", warning=True)

    def chosen(self, key: str) -> None:
        if key == _AGAIN:
            self._probe()
        elif not self.switch(key):
            self.to_plan((Placed("", self._disks[key]),))

    def refused(self, row: Row) -> None:
        disk = self._disks[row.key]
        self.say(f"{disk.node} cannot be the target: {'; '.join(disk.obstacles)}.", warning=True)

    def switched(self) -> None:
        self._show()

    def _probe(self) -> None:
        def look() -> Message:
            machine = self.jobs.probe()
            # Once is enough: a recovery point of one disk does not become one of several.
            if self._disks:
                return self.Probed(machine)
            return self.Probed(machine, *self.jobs.match(self._to.repository, self._to.point.id, machine))

        self.start(look, "Looking at the disks")

    def _show(self) -> None:
        header = columns(("Disk", "Size", "Model", "Serial number"), _WIDTHS)
        rows = [disk_row(disk) for disk in self._disks.values()]
        again = Row(_AGAIN, ("Look again (after attaching a disk)",))
        self.query_one(Picker).show([*rows, *self.option_rows("the disk"), again], header=header)


def disk_row(disk: MachineDisk) -> Row:
    """A disk of this machine, what it holds, and why it cannot be the target."""
    identity = disk.identity
    cells = (short_name(disk), format_size(disk.size), identity.model or identity.transport, identity.serial)
    holds = "; ".join(disk.contents) or "nothing that is recognised"
    reasons = (f"  not possible: {obstacle}" for obstacle in disk.obstacles)
    return Row(disk.node, (columns(cells, _WIDTHS), f"  holds {holds}", *reasons), enabled=not disk.obstacles)


def short_name(disk: MachineDisk) -> str:
    """What a person types and reads for a disk: ``sda``; of an image file its name."""
    return short_node(disk.node)
