"""Driving the wizard in tests: keys in, the drawn screen out."""

import asyncio
import contextlib
import string
from collections.abc import AsyncIterator

from textual import events
from textual.pilot import Pilot

from rescue.tui.app import Wizard
from rescue.tui.jobs import Jobs

WIDTH, HEIGHT = 80, 24
#: What screens may draw: ASCII, and the box-drawing characters that the code page 437 of every VGA font has.
DRAWN = frozenset(string.printable.strip() + " " + "─│┌┐└┘├┤┬┴┼")
_PATIENCE = 30.0


class Driver:
    """A running wizard on an 80x24 screen."""

    def __init__(self, app: Wizard, pilot: Pilot[None]) -> None:
        self.app = app
        self._pilot = pilot

    @property
    def lines(self) -> list[str]:
        """The screen as it is drawn, a string for each line."""
        return [strip.text for strip in self.app.screen._compositor.render_strips()]

    @property
    def text(self) -> str:
        """The same as one string."""
        return "\n".join(self.lines)

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)

    async def burst(self, *keys: str) -> None:
        """Keys that are all there before the first is handled: a key that repeats, two line ends of a serial line."""
        for key in keys:
            self.app.post_message(events.Key(key, None))
        await self._pilot.pause(0.5)

    async def type(self, text: str) -> None:
        await self._pilot.press(*(_KEYS.get(character, character) for character in text))

    async def ended(self) -> None:
        """Wait until the wizard has ended by itself."""
        end = asyncio.get_running_loop().time() + _PATIENCE
        while self.app.is_running and not self.app._exit:
            if asyncio.get_running_loop().time() > end:
                raise AssertionError(f"the wizard still runs\n{self.text}")
            await asyncio.sleep(0.02)

    async def see(self, *wanted: str) -> str:
        """Wait until all of these are drawn; what is drawn then."""
        end = asyncio.get_running_loop().time() + _PATIENCE
        while not all(text in self.text for text in wanted):
            if asyncio.get_running_loop().time() > end:
                raise AssertionError(f"not seen: {wanted}\n{self.text}")
            await self._pilot.pause(0.02)
        return self.text


_KEYS = {" ": "space", ".": "full_stop", "-": "minus", "/": "slash", ":": "colon", "_": "underscore", "@": "at"}


@contextlib.asynccontextmanager
async def wizard(jobs: Jobs, *, shell_behind: bool = False) -> AsyncIterator[Driver]:
    """The wizard on a screen of 80x24."""
    app = Wizard(jobs, shell_behind=shell_behind)
    async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
        yield Driver(app, pilot)
