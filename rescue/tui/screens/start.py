"""The first screen: what machine this is, and what to do. Kept lean: it is what a slow machine waits for."""

from collections.abc import Iterable

from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from builder.drivers.device_role import undriven
from core.errors import LiferaftError
from core.units import format_size
from images.model.machine import Machine
from rescue.tui.jobs import Jobs
from rescue.tui.messages import (
    Ending,
    Go,
    ToEnding,
    ToMachine,
    ToPreflight,
    ToRepository,
    ToStick,
    ToSupport,
    WantShell,
)
from rescue.tui.screen import WizardScreen
from rescue.tui.text import cut
from rescue.tui.widgets.picker import Picker, Row

_CHOICES = (
    Row("restore", ("Restore a machine from a recovery point",)),
    Row("machine", ("Show this machine: disks and network",)),
    Row("support", ("Save a support bundle: logs and hardware, without secrets",)),
    Row("stick", ("Make another rescue stick: a copy of this medium, or from an ISO file",)),
    Row("preflight", ("Check a rescue medium: does it drive all of this machine?",)),
    Row("shell", ("Shell: a command line; exit comes back",)),
    Row("reboot", ("Reboot",)),
    Row("poweroff", ("Power off",)),
)


class StartScreen(WizardScreen):
    """Restore, look, save, make a stick, check a medium, shell, reboot, power off."""

    HEADLINE = "Rescue system"
    KEYS = "Up/Down: choose   Enter: go on   F2: a shell, on every screen"

    class Probed(Message):
        """The machine was looked at."""

        def __init__(self, machine: Machine) -> None:
            super().__init__()
            self.machine = machine

    class Ready(Message):
        """The first screen is complete."""

    def __init__(self, jobs: Jobs) -> None:
        super().__init__(jobs)
        self._machine: Machine | None = None

    def body(self) -> Iterable[Widget]:
        yield Static("\n\n", id="machine", classes="text", markup=False)
        yield Picker(_CHOICES, classes="fitting")

    def on_screen_resume(self) -> None:
        """Whenever this screen is shown: disks come and go."""
        self.start(lambda: self.Probed(self.jobs.probe()), "Looking at this machine")

    def on_start_screen_probed(self, message: Probed) -> None:
        self.finished()
        self._machine = message.machine
        width = self.size.width - 2
        self.query_one("#machine", Static).update("\n".join(cut(line, width) for line in describe(message.machine)))
        self.post_message(self.Ready())

    def failed(self, error: LiferaftError) -> None:
        """The choices stay: a shell may be what helps now."""
        lines = ("This machine could not be looked at:", error.message, error.hint)
        text = "\n".join(cut(line, self.size.width - 2) for line in lines)
        self.query_one("#machine", Static).update(text)

    def chosen(self, key: str) -> None:
        match key:
            case "restore":
                network = network_line(self._machine) if self._machine else ""
                self.post_message(Go(ToRepository(network)))
            case "machine" if self._machine is not None:
                self.post_message(Go(ToMachine(self._machine)))
            case "shell":
                self.post_message(WantShell(leave=True))
            case "stick":
                self.post_message(Go(ToStick()))
            case "preflight":
                self.post_message(Go(ToPreflight()))
            case "support":
                self.post_message(Go(ToSupport()))
            case "reboot" | "poweroff":
                self.post_message(Go(ToEnding(Ending(key))))

    def action_back(self) -> None:
        """There is nothing behind the first screen."""


def describe(machine: Machine) -> tuple[str, ...]:
    """Three lines: the machine, how it was started, disks and network; a fourth when something has no driver."""
    product = machine.product or "Unknown machine"
    disks = ", ".join(f"{disk.node.removeprefix('/dev/')} {format_size(disk.size)}" for disk in machine.disks)
    missing = undriven(machine.devices)
    return (
        f"{product}, {machine.architecture}, {format_size(machine.ram)} of RAM",
        f"Started by {machine.firmware.upper()}, Secure Boot {machine.secure_boot}. {network_line(machine)}",
        f"Disks: {disks}" if disks else "No disks. Is the controller in RAID or VMD mode, or its driver missing?",
        *((f"No driver on this medium for: {', '.join(missing)}",) if missing else ()),
    )


def network_line(machine: Machine) -> str:
    """One sentence about the network interfaces."""
    up = [nic.name for nic in machine.nics if nic.up]
    if up:
        return f"Network: {', '.join(up)} up."
    if machine.nics:
        return f"Network: {', '.join(nic.name for nic in machine.nics)} without a link."
    return "No network interface."
