"""The wizard: from a dead machine to a restored one, on a bare console or a serial line.

This module knows which screen lies in which module and how to go from one to the other. It loads them
when they are first needed, because every import counts on a machine that boots from a CD. The engine is
behind :class:`rescue.tui.jobs.Jobs`; a screen never calls it in the user interface's own thread.
"""

import asyncio
import importlib
import logging
import os
import queue
import sys
import threading
from pathlib import Path
from typing import ClassVar

from textual.app import App, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.screen import Screen

from core.errors import ExitCode, LiferaftError, UsageError
from core.process import SystemRunner, end_programs, run_on_terminal
from core.stopping import told_to_stop, undisturbed
from rescue.tui import messages
from rescue.tui.decisions import Memory
from rescue.tui.jobs import LATER, Jobs, SystemJobs
from rescue.tui.journal import JournalHandler
from rescue.tui.screen import WizardScreen
from rescue.tui.screens.start import StartScreen

#: Destination -> module and class of its screen.
SCREENS: dict[type[messages.Destination], tuple[str, str]] = {
    messages.ToMachine: ("rescue.tui.screens.machine", "MachineScreen"),
    messages.ToRepository: ("rescue.tui.screens.repository", "RepositoryScreen"),
    messages.ToAddress: ("rescue.tui.screens.address", "AddressScreen"),
    messages.ToPassphrase: ("rescue.tui.screens.passphrase", "PassphraseScreen"),
    messages.ToPoints: ("rescue.tui.screens.points", "PointsScreen"),
    messages.ToTarget: ("rescue.tui.screens.target", "TargetScreen"),
    messages.ToAssign: ("rescue.tui.screens.assign", "AssignScreen"),
    messages.ToPartitions: ("rescue.tui.screens.partitions", "PartitionsScreen"),
    messages.ToScratch: ("rescue.tui.screens.scratch", "ScratchScreen"),
    messages.ToPlan: ("rescue.tui.screens.plan", "PlanScreen"),
    messages.ToRestoring: ("rescue.tui.screens.restoring", "RestoringScreen"),
    messages.ToResult: ("rescue.tui.screens.result", "ResultScreen"),
    messages.ToProblem: ("rescue.tui.screens.problem", "ProblemScreen"),
    messages.ToSupport: ("rescue.tui.screens.support", "SupportScreen"),
    messages.ToStick: ("rescue.tui.screens.stick", "StickScreen"),
    messages.ToStickPlan: ("rescue.tui.screens.stick_plan", "StickPlanScreen"),
    messages.ToStickWriting: ("rescue.tui.screens.stick_writing", "StickWritingScreen"),
    messages.ToStickResult: ("rescue.tui.screens.stick_result", "StickResultScreen"),
    messages.ToPreflight: ("rescue.tui.screens.preflight", "PreflightScreen"),
    messages.ToPreflightResult: ("rescue.tui.screens.preflight_result", "PreflightResultScreen"),
    messages.ToSaveMachine: ("rescue.tui.screens.save_machine", "SaveMachineScreen"),
    messages.ToEnding: ("rescue.tui.screens.ending", "EndingScreen"),
}

#: Beginnings of modules that no restore needs: loaded when somebody comes to them. Two wizards run on a machine,
#: and what they load stays in its memory.
_SELDOM = (
    "rescue.tui.screens.stick",
    "rescue.jobs.stick",
    "rescue.jobs.write_usb",
    "rescue.jobs.attached_media",
    "rescue.tui.screens.preflight",
    "rescue.tui.screens.save_machine",
    "rescue.jobs.preflight",
    "rescue.jobs.machine_document",
)
_SHELL = ("/bin/bash", "--login")
#: A Linux console has no second screen to return to: what the wizard drew would stand there still.
_CLEAR = "\x1b[H\x1b[2J"


class Wizard(App[None]):
    """The app.

    Args:
        shell_behind: whoever started it gets their shell back when it ends; false for a service's wizard.
    """

    CSS_PATH = Path(__file__).with_name("wizard.tcss")
    TITLE = "liferaft"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q,ctrl+c", "refuse_quit", show=False, priority=True),
        Binding("ctrl+l", "redraw", show=False, priority=True),
    ]

    def __init__(self, jobs: Jobs, *, shell_behind: bool = False) -> None:
        super().__init__()
        self.animation_level = "none"
        self._jobs = jobs
        self._memory = Memory()
        self._shell_behind = shell_behind
        self._events: asyncio.AbstractEventLoop | None = None
        #: Somebody ended the program from outside.
        self.stopped = False
        #: What a signal's handler may leave word in (queue.SimpleQueue.put is reentrant): true when it has come.
        self._word = queue.SimpleQueue[bool]()

    def get_default_screen(self) -> Screen[None]:
        start = StartScreen(self._jobs)
        start.memory = self._memory
        return start

    def on_mount(self) -> None:
        self._events = asyncio.get_running_loop()
        threading.Thread(target=self._end_programs, name="stop", daemon=True).start()
        if self.stopped:
            self.exit()

    def stop_soon(self) -> None:
        """End in order: a running job stops at its next event, programs that are waited for are ended (a shell, too),
        and the terminal is given back as it was. Called by a signal, between any two steps of this thread."""
        self.stopped = True
        self._word.put(True)
        if self._events is not None:
            self._events.call_soon_threadsafe(self.exit)

    def on_unmount(self) -> None:
        self._word.put(False)

    def _end_programs(self) -> None:
        """In a thread of its own: this one may be waiting for a shell."""
        if self._word.get():
            end_programs()

    async def on_go(self, message: messages.Go) -> None:
        """Show a screen. Its module is loaded beside the event loop; keys that are typed meanwhile wait for it."""
        module, name = SCREENS[type(message.to)]
        made = getattr(await asyncio.to_thread(importlib.import_module, module), name)(self._jobs, message.to)
        made.memory = self._memory
        if message.replace and len(self.screen_stack) > 1:
            await self.switch_screen(made)
        else:
            await self.push_screen(made)

    async def on_back(self, message: messages.Back) -> None:
        if len(self.screen_stack) > 1:
            await self.pop_screen()

    async def on_home(self, message: messages.Home) -> None:
        while len(self.screen_stack) > 1:
            await self.pop_screen()

    def on_want_shell(self, message: messages.WantShell) -> None:
        """The terminal is the shell's until it ends; a restore goes on beside it, and its news wait."""
        if message.leave and self._shell_behind:
            self.exit()
            return
        try:
            with self.suspend():
                sys.stdout.write(f"{_CLEAR}A root shell. To come back to the wizard: exit\n")
                sys.stdout.flush()
                run_on_terminal(_SHELL)
        except (SuspendNotSupported, LiferaftError) as error:
            if isinstance(self.screen, WizardScreen):
                self.screen.say(f"There is no shell on this terminal: {error}", warning=True)

    def on_start_screen_ready(self, message: StartScreen.Ready) -> None:
        """The first screen stands: load the rest while the person reads."""
        self.run_worker(_load_the_rest, thread=True, exclusive=True, group="load", exit_on_error=False)

    def action_redraw(self) -> None:
        """Draw everything again: the kernel wrote over the screen, or a terminal was attached to the line just now."""
        self.screen.refresh()

    def action_refuse_quit(self) -> None:
        """Nobody ends a restore by accident: the way out is on the start screen."""
        if isinstance(self.screen, WizardScreen):
            self.screen.say("F2 opens a shell. To leave, go back to the start screen with Esc.")


def _load_the_rest() -> None:
    for module in (*(module for module, _ in SCREENS.values()), *LATER.values()):
        if not module.startswith(_SELDOM):
            importlib.import_module(module)


def run_wizard() -> ExitCode:
    """Run the wizard on this terminal until the person leaves it. As a service of the rescue system it has no end,
    and what it starts is told to the journal.

    Returns:
        STOPPED when a signal has ended it. Nothing is said then: the machine may be on its way down, as was chosen.

    Raises:
        UsageError: standard input is not a terminal.
    """
    if not sys.stdin.isatty():
        raise UsageError("The wizard needs a terminal.", hint="Without one: liferaft plan and liferaft restore.")
    if not sys.stderr.isatty():
        # Textual draws on standard error, which a service sends to the journal: nobody would see the wizard.
        os.dup2(sys.stdout.fileno(), sys.stderr.fileno())
    service = os.getppid() == 1
    if service:
        _log_to_journal()
    jobs = SystemJobs(SystemRunner())
    wizard = Wizard(jobs, shell_behind=not service)
    try:
        with told_to_stop(wizard.stop_soon):
            wizard.run(mouse=False)
    finally:
        with undisturbed():
            jobs.close()
    return ExitCode.STOPPED if wizard.stopped else ExitCode.DONE


def _log_to_journal() -> None:
    """What liferaft logs, programs and their failures among it, goes to the journal and nothing onto the screen."""
    root = logging.getLogger()
    root.handlers.clear()
    root.addHandler(JournalHandler())
    for package in ("core", "images", "hooks", "restore", "rescue"):
        logging.getLogger(package).setLevel(logging.DEBUG)
