"""Drives the wizard as a person at a terminal would: reads the 80×24 picture, presses keys, waits for what it shows.

Screens are known by their headlines, rows by words in them; nothing is known of how the wizard is made.
"""

import re
import time

from tests.boot.console import Console, LineTimeoutError

ENTER = "\r"
DOWN = "\x1b[B"
HOME = "\x1b[H"
ESCAPE = "\x1b"

_PATIENCE = 300.0
_ERRORS = ("That did not work", "Restore failed", "Restore stopped")


class WizardDriver:
    """A person at the serial line.

    Args:
        patience: seconds to wait for what a key brings.
    """

    def __init__(self, console: Console, patience: float = _PATIENCE) -> None:
        self._console = console
        self._patience = patience

    def restore(self, address: str, point: str, serial: str, timeout: float) -> list[str]:
        """The whole way from the start screen to the result; returns the result screen.

        Args:
            address: of the repository, as a person types it.
            point: words in the recovery point's row.
            serial: words in the target's row.
            timeout: seconds for the restore itself.
        """
        self._at("Rescue system", "Started by", timeout=600)
        self._choose("Restore a machine")
        self._at("Choose a repository", "Type an address")
        self._press("a")
        self._at("Type the address")
        self._press(address)
        self._sees(address)
        self._press(ENTER)
        self._at("Choose a recovery point", point)
        self._choose(point)
        self._at("Choose the target disk", serial)
        self._press("g")
        self._sees("[x] Grow")
        self._choose(serial)
        self._confirm()
        self._at("Restoring")
        return self._at("Restore finished", timeout=timeout)

    def find_repository(self, words: str) -> list[str]:
        """From the start screen to the list of repositories, until it shows the words; returns that screen."""
        self._at("Rescue system", "Started by", timeout=600)
        self._choose("Restore a machine")
        return self._at("Choose a repository", words)

    def check_running_medium(self) -> list[str]:
        """From the start screen and back: have the medium that runs checked; returns the result screen."""
        self._at("Rescue system", "Started by", timeout=600)
        self._choose("Check a rescue medium")
        self._at("Check a rescue medium", "> This rescue medium")
        self._press(ENTER)
        found = self._at("The medium ", "devices that a restore needs")
        for headline in ("Check a rescue medium", "Rescue system"):
            self._press(ESCAPE)
            self._at(headline)
        self._press(HOME)
        self._sees("> Restore a machine")
        return found

    def save_support_bundle(self, words: str) -> None:
        """From the start screen: save one in the place whose row has the words, and come back."""
        self._at("Rescue system", "Started by", timeout=600)
        self._choose("Save a support bundle")
        self._at("Save a support bundle", words)
        self._choose(words)
        self._sees("Saved liferaft-support-")
        self._press(ESCAPE)
        self._at("Rescue system")

    def power_off(self) -> None:
        """From the result screen: power off, yes."""
        self._choose("Power off")
        self._at("Are you sure?")
        self._choose("Yes, power off")

    def _confirm(self) -> None:
        """Type the sentence that the plan asks for, read from the screen."""
        rows = self._at("Check the plan", "To go on, type:")
        match = re.search(r"To go on, type: (.+?)\s*$", "\n".join(rows), re.MULTILINE)
        assert match is not None
        self._press(match.group(1))
        self._console.wait_screen(
            lambda now: "\n".join(now).count(match.group(1)) > 1, "the typed words", self._patience
        )
        self._press(ENTER)

    def _press(self, keys: str) -> None:
        self._console.send(keys)

    def _at(self, headline: str, *words: str, timeout: float = 0.0) -> list[str]:
        """Wait for a screen with that headline and all the words; an error screen ends the wait."""

        def shows(rows: list[str]) -> bool:
            if any(error in rows[0] for error in _ERRORS):
                # The headline is drawn before the reason.
                time.sleep(5)
                rows = self._console.screen()
                raise LineTimeoutError(f"the wizard shows an error instead of {headline!r}:\n" + "\n".join(rows))
            text = "\n".join(rows)
            return headline in rows[0] and all(word in text for word in words)

        return self._console.wait_screen(shows, repr((headline, *words)), timeout or self._patience)

    def _sees(self, words: str) -> None:
        self._console.wait_screen(lambda rows: any(words in row for row in rows), repr(words), self._patience)

    def _choose(self, words: str) -> None:
        """Move the cursor down to the row with the words and press Enter."""
        for _ in range(20):
            rows = self._console.wait_screen(lambda now: _cursor(now) != "", "a cursor", self._patience)
            row = _cursor(rows)
            if words in row:
                self._press(ENTER)
                return
            self._press(DOWN)
            self._leaves(row)
        raise LineTimeoutError(f"no row with {words!r}:\n" + "\n".join(rows))

    def _leaves(self, row: str) -> None:
        self._console.wait_screen(lambda rows: _cursor(rows) not in ("", row), "the cursor elsewhere", self._patience)


def _cursor(rows: list[str]) -> str:
    """The row under the cursor."""
    return next((row for row in rows if row.lstrip().lstrip("│|").lstrip().startswith("> ")), "")
