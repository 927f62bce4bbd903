"""What is alive is closed from the top, whatever happens on the way."""

import pytest

from core.errors import DeviceError, LiferaftError
from restore.stack.alive import Alive


def test_the_uppermost_is_closed_first_and_closing_again_is_harmless() -> None:
    alive, closed = Alive(), list[str]()
    for device in ("array", "luks", "group"):
        alive.add(device, f"/dev/{device}")
        alive.on_close(lambda device=device: closed.append(device))  # type: ignore[misc]
    alive.close()
    alive.close()
    assert closed == ["group", "luks", "array"]
    with pytest.raises(LiferaftError, match="before the step that makes it"):
        alive.node("array")


def test_what_does_not_close_does_not_keep_the_rest_open() -> None:
    alive, closed = Alive(), list[str]()

    def busy() -> None:
        raise DeviceError("it is busy")

    alive.on_close(lambda: closed.append("array"))
    alive.on_close(busy)
    alive.on_close(lambda: closed.append("group"))
    with pytest.raises(LiferaftError, match="it is busy"):
        alive.close()
    assert closed == ["group", "array"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), OSError("gone"), StopIteration()])
def test_whatever_happens_while_closing_the_rest_is_closed(interruption: BaseException) -> None:
    alive, closed = Alive(), list[str]()

    def interrupted() -> None:
        raise interruption

    def busy() -> None:
        raise DeviceError("it is busy")

    alive.on_close(lambda: closed.append("array"))
    alive.on_close(busy)
    alive.on_close(interrupted)
    alive.on_close(lambda: closed.append("group"))
    with pytest.raises(type(interruption)):
        alive.close()
    assert closed == ["group", "array"]
    alive.close()
