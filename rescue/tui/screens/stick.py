"""Making another rescue stick: from which medium, onto which stick, with what on its partition for data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from builder.archive.mirror import without_user
from builder.stick.layout import DATA_NAME
from core.errors import LiferaftError
from core.events import Event
from core.units import counted, format_duration
from images.model.machine import Machine, MachineDisk
from images.store.passphrase import Passphrase, PassphraseNeededError, WrongPassphraseError
from rescue.tui.jobs import Jobs
from rescue.tui.media_rows import ASK_PATH, TYPE_PATH, media_rows
from rescue.tui.messages import Go, StickWish, ToProblem, ToStick, ToStickPlan
from rescue.tui.screen import WizardScreen
from rescue.tui.screens.address import complete_address
from rescue.tui.screens.target import disk_row
from rescue.tui.text import cut, short_node
from rescue.tui.widgets.picker import Picker, Row
from rescue.tui.widgets.secret import Secret

if TYPE_CHECKING:  # the screen stands before the jobs are loaded
    from rescue.jobs.attached_media import AttachedMedium
    from rescue.jobs.repositories import Findings, FoundRepository
    from rescue.jobs.write_usb import StickPlan

_WHAT = """\
A stick that starts this rescue system. The rest of it may hold recovery
points, so that nothing else is needed to restore a machine.
"""
_ITSELF = "it is what is written from"
_NOT_REMOVABLE = "it does not say that it is removable"
_LIST_KEYS = "Up/Down: choose  Enter: go on  D, K, R, W: switch and change  Esc: back"
_CHOICE_KEYS = "Up/Down: choose   Enter: take it   Esc: back to the list"
_TYPE_KEYS = "Enter: take it   Esc: back"
_AGAIN, _NONE, _EMPTY, _TYPE = "again", "none", "empty", "type"


class _Mode(StrEnum):
    """What the person is at: the list, a list of its own about one row, or a field."""

    LIST = "list"
    SOURCE = "option source"
    REPOSITORY = "option repository"
    FILE = "file"
    ADDRESS = "address"
    PASSPHRASE = "passphrase"


_DATA, _KEEP = "option data", "option keep"
_ASKED = {
    _Mode.FILE: f"Type the path of the ISO file {ASK_PATH}.",
    _Mode.ADDRESS: "Type where the repository is: http://server/folder, or a path.",
    _Mode.PASSPHRASE: "The repository is encrypted. Type its passphrase; the copy on the stick gets the same.",
}


class StickScreen(WizardScreen):
    """Sticks and switches. Enter on a stick makes the plan, which is shown on a screen of its own."""

    HEADLINE = "Make another rescue stick"
    KEYS = _LIST_KEYS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "switch_data", show=False),
        Binding("k", "switch_keep", show=False),
        Binding("r", "change_repository", show=False),
        Binding("w", "change_source", show=False),
    ]

    class Looked(Message):
        """The disks and media of the machine are known. ``held``: the repositories on what may be taken for a stick."""

        def __init__(
            self, machine: Machine, media: tuple[AttachedMedium, ...], held: tuple[FoundRepository, ...]
        ) -> None:
            super().__init__()
            self.machine = machine
            self.media = media
            self.held = held

    class Found(Message):
        """The repositories on attached disks."""

        def __init__(self, findings: Findings) -> None:
            super().__init__()
            self.findings = findings

    class Checked(Message):
        """How far the medium has been read."""

        def __init__(self, event: Event) -> None:
            super().__init__()
            self.event = event

    class Planned(Message):
        """Nothing speaks against it."""

        def __init__(self, plan: StickPlan) -> None:
            super().__init__()
            self.plan = plan

    def __init__(self, jobs: Jobs, to: ToStick) -> None:
        super().__init__(jobs)
        self._disks: dict[str, MachineDisk] = {}
        self._media: dict[str, str] = {}
        self._found: dict[str, str] = {}
        #: The repositories that are known, of each disk: what is lost with it.
        self._held: dict[str, list[FoundRepository]] = {}
        self._mode = _Mode.LIST
        self._stick = ""
        self._planning = False

    @property
    def _wish(self) -> StickWish:
        return self.memory.stick

    @_wish.setter
    def _wish(self, wish: StickWish) -> None:
        self.memory.stick = wish

    def body(self) -> Iterable[Widget]:
        yield Static(_WHAT, classes="text", markup=False)
        yield Picker()
        for field in (Input(id="typed"), Secret(id="passphrase")):
            field.cursor_blink = False
            field.display = False
            yield field

    def on_screen_resume(self) -> None:
        if self._mode is _Mode.LIST:
            self._look()

    def on_unmount(self) -> None:
        if without_user(self._wish.repository) != self._wish.repository:
            self._wish = replace(self._wish, repository="", empty=False)

    def on_stick_screen_looked(self, message: Looked) -> None:
        self.finished()
        self._disks = {disk.node: disk for disk in message.machine.disks}
        self._media = {medium.node: medium.name for medium in message.media}
        self._hold(message.held)
        attached = self._wish.iso in self._media or not self._wish.iso.startswith("/dev/")
        if not self._wish.iso or not attached:
            self._wish = replace(self._wish, iso=next(iter(self._media), ""))
        if self._mode is _Mode.LIST:
            self._show()

    def on_stick_screen_found(self, message: Found) -> None:
        self.finished()
        self._found = {
            one.path: f"{'Encrypted' if one.encrypted else counted(one.points, 'recovery point')} on {one.disk}"
            for one in message.findings.repositories
            if not one.problem
        }
        self._found |= {one.address: one.name or one.shown for one in message.findings.offered}
        self._hold(message.findings.repositories)
        if self._mode is _Mode.REPOSITORY:
            self._show()

    def on_stick_screen_checked(self, message: Checked) -> None:
        event = message.event
        if event.total:
            left = f", {format_duration(event.eta)} left" if event.eta is not None else ""
            self.doing(f"Reading the medium and checking it: {event.done * 100 // event.total} %{left}")

    def on_stick_screen_planned(self, message: Planned) -> None:
        self.finished()
        self._close()
        chosen, stick = self._disks.get(self._stick), message.plan.stick
        if not stick.file and (chosen is None or (stick.identity, stick.size) != (chosen.identity, chosen.size)):
            self._show()
            self.say(f"{short_node(self._stick)} is another disk now. Look again.", warning=True)
            return
        self.post_message(Go(ToStickPlan(message.plan)))

    def failed(self, error: LiferaftError) -> None:
        if isinstance(error, PassphraseNeededError):
            self._type(_Mode.PASSPHRASE)
        elif isinstance(error, WrongPassphraseError):
            self._type(_Mode.PASSPHRASE)
            self.say("That passphrase does not open it. Mind the keyboard layout and Caps Lock.", warning=True)
        elif self._planning:
            # Another stick, or another switch, may do.
            self._close()
            self.post_message(Go(ToProblem(error)))
        else:
            super().failed(error)

    def chosen(self, key: str) -> None:
        match self._mode:
            case _Mode.SOURCE:
                self._choose_source(key)
            case _Mode.REPOSITORY:
                self._choose_repository(key)
            case _Mode.LIST if key in self._disks:
                self._stick = key
                self._plan(None)
            case _Mode.LIST:
                actions = {
                    _DATA: self.action_switch_data,
                    _KEEP: self.action_switch_keep,
                    _Mode.SOURCE: self.action_change_source,
                    _Mode.REPOSITORY: self.action_change_repository,
                    _AGAIN: self._look,
                }
                actions[key]()

    def refused(self, row: Row) -> None:
        against = self._against(self._disks[row.key])
        hint = " On the command line: liferaft write-usb --not-removable." if against == (_NOT_REMOVABLE,) else ""
        if against == tuple(self._holdings(self._disks[row.key])):
            hint = " Whoever wants to lose that has the command line: liferaft write-usb."
        self.say(f"It cannot be the stick: {'; '.join(against)}.{hint}", warning=True)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The keys of the list are for the list."""
        return self._mode is _Mode.LIST or not action.startswith(("switch_", "change_"))

    def action_back(self) -> None:
        if self._mode is _Mode.LIST:
            super().action_back()
        else:
            self._close()
            self._show()

    def action_switch_data(self) -> None:
        on = not self._wish.data
        kept = replace(self._wish, data=on, keep=False)
        self._wish = kept if on else replace(kept, repository="", empty=False)
        self._show()

    def action_switch_keep(self) -> None:
        on = not self._wish.keep
        kept = replace(self._wish, keep=on, data=False)
        self._wish = kept if on else replace(kept, repository="", empty=False)
        self._show()

    def action_change_source(self) -> None:
        self._mode = _Mode.SOURCE
        self._show()

    def action_change_repository(self) -> None:
        self._mode = _Mode.REPOSITORY
        self._planning = False
        self._show()
        self.start(lambda: self.Found(self.jobs.find_repositories()), "Looking for repositories on all disks")

    def on_input_submitted(self, message: Input.Submitted) -> None:
        text = message.value.strip()
        if not text:
            return
        match self._mode:
            case _Mode.FILE:
                self._take(replace(self._wish, iso=text))
            case _Mode.ADDRESS:
                self._take_repository(complete_address(text))
            case _Mode.PASSPHRASE:
                self.query_one(Secret).clear()
                self._plan(Passphrase(message.value))

    def _choose_source(self, key: str) -> None:
        if key == TYPE_PATH:
            self._type(_Mode.FILE)
        else:
            self._take(replace(self._wish, iso=key))

    def _choose_repository(self, key: str) -> None:
        if key == _TYPE:
            self._type(_Mode.ADDRESS)
        elif key == _NONE:
            self._take(replace(self._wish, repository="", empty=False))
        else:
            self._take_repository("" if key == _EMPTY else key)

    def _take_repository(self, repository: str) -> None:
        """It needs a partition for data: a new one, unless the one that is there stays."""
        wish = replace(self._wish, repository=repository, empty=not repository)
        self._take(wish if wish.keep else replace(wish, data=True))

    def _take(self, wish: StickWish) -> None:
        changed = self._mode
        self._wish = wish
        self._close()
        self._show(_Mode.SOURCE if changed in (_Mode.SOURCE, _Mode.FILE) else _Mode.REPOSITORY)

    def _type(self, mode: _Mode) -> None:
        self._mode = mode
        field = self._field()
        field.clear()
        field.display = True
        field.focus()
        self.keys(_TYPE_KEYS)
        self.say(_ASKED[mode])

    def _field(self) -> Input:
        return self.query_one(Secret) if self._mode is _Mode.PASSPHRASE else self.query_one("#typed", Input)

    def _close(self) -> None:
        """Back to the list."""
        self._mode = _Mode.LIST
        for field in self.query(Input):
            field.clear()
            field.display = False
        self.query_one(Picker).focus()

    def _look(self) -> None:
        self._planning = False

        def look() -> Message:
            # A stick that is mounted for its repository cannot be written.
            media = self.jobs.media(self._wish.repository)
            held = self.jobs.held_by_sticks(self._wish.repository)
            return self.Looked(self.jobs.probe(), media, held)

        self.start(look, "Looking at the disks")

    def _plan(self, passphrase: Passphrase | None) -> None:
        wish, stick = self._wish, self._stick
        if not wish.iso:
            self.say("No rescue medium is attached. W: type the path of an ISO file.", warning=True)
            return

        def told(event: Event) -> None:
            self.post_message(self.Checked(event))

        def plan() -> Message:
            return self.Planned(self.jobs.plan_stick(wish, stick, passphrase, told))

        self._planning = True
        self.start(plan, "Looking at the stick")

    def _show(self, at: str = "") -> None:
        picker = self.query_one(Picker)
        self.say("")
        self.keys(_LIST_KEYS if self._mode is _Mode.LIST else _CHOICE_KEYS)
        if self._mode is _Mode.SOURCE:
            rows = media_rows(self._media, "An ISO file")
            picker.show(rows, header="What is written onto the stick", at=self._wish.iso)
            return
        if self._mode is _Mode.REPOSITORY:
            rows = [Row(_NONE, ("None",)), Row(_EMPTY, ("An empty repository, for recovery points to come",))]
            rows += [Row(path, (f"All of: {name}", f"  {path}")) for path, name in self._found.items()]
            rows.append(Row(_TYPE, ("All of a repository elsewhere: type its address",)))
            picker.show(rows, header="Recovery points on the stick", at=self._wish.repository or _NONE)
            return
        sticks = [_stick_row(disk, self._against(disk)) for disk in self._disks.values()]
        rows = [*sticks, *self._switches(), Row(_AGAIN, ("Look again (after attaching a stick)",))]
        picker.show(rows, header="Onto which stick?", at=at)
        if not any(row.enabled for row in sticks):
            self.say("No stick is attached that may be written. The reasons are in the list.", warning=True)

    def _hold(self, found: Iterable[FoundRepository]) -> None:
        self._held = {}
        for one in found:
            self._held.setdefault(one.node, []).append(one)

    def _against(self, disk: MachineDisk) -> tuple[str, ...]:
        """Why a disk is no stick to be written, as far as is known. A medium that does not run may be one, unless it is
        the one that is written from."""
        if disk.node == self._wish.iso:
            return (_ITSELF,)
        obstacles = [obstacle for obstacle in disk.obstacles if not obstacle.endswith("carries the rescue medium")]
        obstacles += self._holdings(disk)
        return tuple(obstacles) if disk.removable else (*obstacles, _NOT_REMOVABLE)

    def _holdings(self, disk: MachineDisk) -> Iterator[str]:
        """The repositories that would be lost with a disk. The partition that K keeps is none of them."""
        for one in self._held.get(disk.node, ()):
            if not (self._wish.keep and one.partition == DATA_NAME):
                yield f"{one.device} holds {one.shown}"

    def _switches(self) -> list[Row]:
        wish = self._wish
        source = self._media.get(wish.iso, wish.iso) or "nothing yet"
        points = "an empty repository" if wish.empty else "none"
        if wish.repository:
            points = f"all of {without_user(wish.repository)}"
        return [
            Row(_Mode.SOURCE, (f"W: written from: {source}",)),
            Row(
                _DATA, (f"[{'x' if wish.data else ' '}] D: a new partition for data in the rest of the stick (exFAT)",)
            ),
            Row(_KEEP, (f"[{'x' if wish.keep else ' '}] K: keep the partition for data that is on the stick",)),
            Row(_Mode.REPOSITORY, (f"R: recovery points on it: {points}",)),
        ]


def _stick_row(disk: MachineDisk, against: tuple[str, ...]) -> Row:
    """A disk, and why it may not be the stick."""
    row = disk_row(disk)
    reasons = tuple(cut(f"  not possible: {reason}", 200) for reason in against)
    return Row(disk.node, (*row.lines[:2], *reasons), enabled=not against)
