"""What is alive of a stack: the device nodes behind the layout's ids, and how to let go of them again.

A node means something only as long as this process holds the stack open; nothing of it is stored.
"""

from collections.abc import Callable

from core.errors import LiferaftError
from core.stopping import undisturbed


class Alive:
    """Devices by their ids in the layout, bottom up, each with what closes it."""

    def __init__(self) -> None:
        self._nodes: dict[str, str] = {}
        self._closers: list[Callable[[], None]] = []

    def node(self, device: str) -> str:
        """The device node of a device.

        Raises:
            LiferaftError: the plan uses it before it made it.
        """
        if device not in self._nodes:
            raise LiferaftError(f"The plan uses {device} before the step that makes it.")
        return self._nodes[device]

    def has(self, device: str) -> bool:
        """Whether it has a node now."""
        return device in self._nodes

    def nodes(self) -> dict[str, str]:
        """All nodes by device."""
        return dict(self._nodes)

    def add(self, device: str, node: str) -> None:
        """A device has a node now."""
        self._nodes[device] = node

    def on_close(self, closer: Callable[[], None]) -> None:
        """What is to be undone when the stack is closed; the last is undone first."""
        self._closers.append(closer)

    def close(self) -> None:
        """Close everything, the uppermost first. Does all it can, and doing it again is harmless.

        Raises:
            LiferaftError: the first thing that did not close, with the others as its hint. Whatever else interrupts
                (Ctrl-C, a defect) is raised when all the rest was tried.
        """
        problems: list[LiferaftError] = []
        interrupted: BaseException | None = None
        self._nodes.clear()
        while self._closers:
            try:
                with undisturbed():
                    self._closers.pop()()
            except LiferaftError as error:
                problems.append(error)
            except BaseException as error:  # noqa: BLE001 - it is raised again when nothing is left open
                interrupted = interrupted or error
        if interrupted is not None:
            raise interrupted
        if problems:
            first, *others = problems
            raise LiferaftError(
                f"The stack of the restored disks could not be closed: {first.message}",
                hint="; ".join(error.message for error in others) or first.hint,
            )
