"""Saving this machine's document, for a medium that is built for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rescue.tui.jobs import Jobs
from rescue.tui.messages import ToSaveMachine
from rescue.tui.places_screen import PlacesScreen

if TYPE_CHECKING:  # the screen stands before the job is loaded
    from rescue.jobs.support_places import SupportPlace


class SaveMachineScreen(PlacesScreen):
    """The machine is the one that a medium was judged for."""

    HEADLINE = "Save this machine's document"
    WHAT = """\
Devices, disks with their serial numbers, network cards, and what the firmware
trusts, as a file. On any computer, liferaft preflight --machine FILE judges
media by it, and firmware.machines in a recipe brings the firmware that its
devices ask for onto a new one. Where shall it be saved?
"""
    SAVING = "Saving"

    def __init__(self, jobs: Jobs, to: ToSaveMachine) -> None:
        super().__init__(jobs)
        self._machine = to.machine

    def save(self, place: SupportPlace) -> str:
        return self.jobs.save_machine(place, self._machine)
