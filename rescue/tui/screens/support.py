"""Saving the support bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.events import ignore
from rescue.tui.jobs import Jobs
from rescue.tui.messages import ToSupport
from rescue.tui.places_screen import PlacesScreen

if TYPE_CHECKING:  # the screen stands before the job is loaded
    from rescue.jobs.support_places import SupportPlace


class SupportScreen(PlacesScreen):
    """The seconds that the screen counts say enough of its progress."""

    HEADLINE = "Save a support bundle"
    WHAT = """\
One ZIP file with logs, hardware, disks and this run's plans and reports, for whoever helps you.
Passphrases, passwords in addresses, tokens and keys are left out. Where shall it be saved?
"""
    SAVING = "Collecting and saving"

    def __init__(self, jobs: Jobs, to: ToSupport) -> None:
        super().__init__(jobs)

    def save(self, place: SupportPlace) -> str:
        return self.jobs.save_support(place, ignore)
