"""Everything the probe knows of this machine, to read."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from core.units import format_size
from images.model.machine import Machine, MachineDisk
from rescue.tui.jobs import Jobs
from rescue.tui.messages import ToMachine
from rescue.tui.screen import WizardScreen
from rescue.tui.screens.start import describe
from rescue.tui.widgets.pager import Pager


class MachineScreen(WizardScreen):
    """Disks, what is on them, whether they may be targets; network interfaces."""

    HEADLINE = "This machine"
    KEYS = "Up/Down, PgUp/PgDn: move   Esc or Enter: back"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("enter", "back", show=False),
    ]

    def __init__(self, jobs: Jobs, to: ToMachine) -> None:
        super().__init__(jobs)
        self._to = to

    def body(self) -> Iterable[Widget]:
        yield Pager("\n".join(_lines(self._to.machine)))

    def action_move(self, lines: int) -> None:
        self.query_one(Pager).move(lines)

    def action_page(self, pages: int) -> None:
        pager = self.query_one(Pager)
        pager.move(pages * pager.page)


def _lines(machine: Machine) -> Iterator[str]:
    yield from describe(machine)
    for nic in machine.nics:
        yield f"Network {nic.name}  {nic.mac}  {nic.driver or 'no driver'}  {'up' if nic.up else 'down'}"
    for disk in machine.disks:
        yield ""
        yield from _disk_lines(disk)


def _disk_lines(disk: MachineDisk) -> Iterator[str]:
    names = " ".join(word for word in (disk.identity.model, disk.identity.transport) if word)
    serial = f"serial {disk.identity.serial}" if disk.identity.serial else "no serial number"
    yield f"{disk.node}  {format_size(disk.size)}  {names}  {serial}"
    yield from (f"    {line}" for line in disk.contents or ("nothing that is recognised",))
    if disk.obstacles:
        yield from (f"  not a target: {obstacle}" for obstacle in disk.obstacles)
    else:
        yield "  may be a target"
