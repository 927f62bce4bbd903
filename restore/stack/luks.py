"""LUKS containers: opened with a key of the user's, after their own header was put back.

The header and all key slots come back bit for bit with their volume, so that every passphrase of old opens the
container; nothing is formatted here. Discards are not passed down: a discarded sector of an encrypted device reads
as noise, and what the plan zeroes has to read as zeros.
"""

from pathlib import Path

from core.errors import DeviceError, LiferaftError, RefusedError
from core.process import Runner
from images.model.stack import Luks
from images.stack.keys import Keys, Try

TOOLS = ("cryptsetup",)
#: cryptsetup(8), "RETURN CODES": 2 is no permission, that is, a wrong passphrase.
_WRONG_KEY = 2
#: Argon2 with a gigabyte on a slow machine.
_TIMEOUT = 900.0


def open_luks(luks: Luks, node: str, keys: Keys, runner: Runner) -> str:
    """Open a container under the name it had, which the restored system's own tools look for.

    Args:
        node: what it lies on; its header is there.

    Returns:
        the node of the opened device.

    Raises:
        RefusedError: no key opens it. DeviceError: it is not the container that was captured.
    """
    found = _uuid(node, runner)
    if found != luks.uuid:
        raise DeviceError(f"{node}: the UUID of the LUKS header is {found!r}, expected {luks.uuid!r}.")
    name = free_name(luks, Path("/dev/mapper"))
    opened = f"/dev/mapper/{name}"
    for attempt in keys.tries():
        if _cryptsetup(("--type", f"luks{luks.version}", node, name), attempt, keys, runner):
            try:
                _check(luks, opened, runner)
            except BaseException:
                close_luks(opened, runner)
                raise
            return opened
    raise RefusedError(
        f"None of the {len(keys)} keys that were given opens the LUKS container {luks.id} ({luks.uuid}).",
        hint="Name its key file with --luks-key, or its passphrase with --luks-passphrase-file.",
    )


def renew_luks(node: str, old: str, new: str, runner: Runner) -> None:
    """Give the container whose header is on ``node`` another UUID; key slots and data stay. Again is harmless.

    Raises:
        DeviceError: it has neither UUID, or did not take the new one.
    """
    found = _uuid(node, runner)
    if found == old:
        # It asks for nothing else but whether it may.
        runner.run(["cryptsetup", "--batch-mode", "luksUUID", "--uuid", new, node], timeout=60)
        found = _uuid(node, runner)
    if found != new:
        raise DeviceError(f"{node}: the UUID of the LUKS header is {found!r}, expected {new!r}, before that {old!r}.")


def _uuid(node: str, runner: Runner) -> str:
    return runner.run(["cryptsetup", "luksUUID", node], timeout=60).stdout.strip()


def close_luks(opened: str, runner: Runner) -> None:
    """Close a container again."""
    runner.run(["udevadm", "settle", "--timeout=30"], timeout=60)
    runner.run(["cryptsetup", "close", Path(opened).name], timeout=120)


def free_name(luks: Luks, folder: Path) -> str:
    """The mapping's name at capture; another when liferaft opened it then.

    Raises:
        LiferaftError: this machine has a mapping of that name.
    """
    name = luks.name or f"luks-{luks.uuid}"
    if not name.strip(".") or "/" in name or (folder / name).exists():
        raise LiferaftError(
            f"This machine has a mapping {name!r} already: the LUKS container {luks.id} cannot be opened under it.",
            hint="Close it, or restore from a machine that does not use it.",
        )
    return name


def header_opens(header: Path, keys: Keys, runner: Runner) -> bool:
    """Whether one of the keys opens the container with this header, a plain file. Nothing is opened."""
    return any(_cryptsetup(("--test-passphrase", str(header)), attempt, keys, runner) for attempt in keys.tries())


def _cryptsetup(words: tuple[str, ...], attempt: Try, keys: Keys, runner: Runner) -> bool:
    """``cryptsetup open``; False for a wrong key."""
    result = runner.run(
        ["cryptsetup", "open", *attempt.words, *words],
        success=frozenset({0, _WRONG_KEY}),
        timeout=_TIMEOUT,
        stdin=attempt.text,
        secrets=keys.passphrases,
    )
    return result.returncode == 0


def _check(luks: Luks, opened: str, runner: Runner) -> None:
    size = int(runner.run(["blockdev", "--getsize64", opened], timeout=60).stdout)
    if size < luks.size:
        raise DeviceError(f"{opened}: the opened LUKS container has {size} bytes, expected {luks.size}.")
