"""Opening what lies on a source, to read it: arrays, LUKS containers, volume groups. Nothing on the source changes.

What is running or open already is used as it is. What is not is assembled, opened and activated read-only, and closed
again when the opener is, the uppermost first, whatever happened in between.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from core.errors import LiferaftError, ProcessError, RefusedError
from core.events import Event, Sink, Stage
from core.process import Runner
from core.stopping import undisturbed
from images.probe import BlockDevice, block_devices
from images.stack.cow import writable_copy
from images.stack.keys import Keys
from images.stack.luks import Header
from images.stack.lvm_text import Group
from images.stack.nodes import mapper_name

#: cryptsetup(8), "RETURN CODES": 2 is no permission, that is, a wrong passphrase.
_WRONG_KEY = 2
#: Argon2 with a gigabyte on a slow machine.
_TIMEOUT = 900.0
#: How often a device that somebody looks at (udev) is tried to be closed.
_TRIES = 5
#: What is opened is called so. The number is this process's: on the disks of a machine and of its clone lie containers
#: of the same name, and what another process has opened is not ours to close.
_PREFIX = f"liferaft-{os.getpid()}-"
#: A folder that is memory on every Linux with systemd (file-hierarchy(7)).
_MEMORY = Path("/run")


class NotOpenedError(LiferaftError):
    """It cannot be followed; the message is the reason, without a full stop."""


class Opener:
    """Opens containers, and closes those it opened."""

    def __init__(self, runner: Runner, keys: Keys, sink: Sink) -> None:
        self._runner = runner
        self._keys = keys
        self._sink = sink
        self._closing = contextlib.ExitStack()
        self._before = self.devices()

    def __enter__(self) -> "Opener":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.__exit__(kind, error, trace)

    def devices(self) -> tuple[BlockDevice, ...]:
        """The block devices there are now."""
        return block_devices(self._runner)

    def array(self, name: str, uuid: str, nodes: Sequence[str]) -> str:
        """The node of the array that lies on ``nodes``, running.

        Raises:
            NotOpenedError: it does not start.
        """
        for child in self._children(nodes):
            if child.type.startswith(("raid", "md", "linear")):
                if child.size:
                    return child.name
                raise NotOpenedError("it is assembled but not running")
        node = f"/dev/md/{_PREFIX}{name}"
        argv = ["mdadm", "--assemble", "--readonly", "--run", "--config=none", f"--uuid={uuid}", node, *nodes]
        self._closing.callback(self._close, ["mdadm", "--stop", node], Path(node))
        self._do(argv, "mdadm does not start it")
        return node

    def luks(self, header: Header, node: str) -> tuple[str, str]:
        """The node of the opened container on ``node``, and the name of its mapping; empty when liferaft opened it.

        Raises:
            NotOpenedError: no key opens it.
        """
        for child in self._children([node]):
            if child.type == "crypt":
                return child.name, Path(child.name).name
        name = _PREFIX + header.uuid
        argv = ["cryptsetup", "open", "--readonly", "--type", f"luks{header.version}", node, name]
        self._closing.callback(self._close, ["cryptsetup", "close", name], Path(f"/dev/mapper/{name}"))
        for one in self._keys.tries():
            if self._opens([*argv, *one.words], one.text):
                return self._opened(name), ""
        while self._keys.ask is not None and (typed := self._keys.ask(f"LUKS container {header.uuid} on {node}")):
            if self._opens([*argv, "--key-file", "-"], typed):
                self._keys = self._keys.with_passphrase(typed)
                return self._opened(name), ""
        if self._keys:
            raise NotOpenedError("none of the keys that were given opens it")
        raise NotOpenedError("it is encrypted, and no key was given for it")

    def group(self, group: Group, nodes: Sequence[str]) -> dict[str, str]:
        """The nodes of a group's visible volumes by their names, active; thin pools have none.

        Raises:
            NotOpenedError: LVM does not activate it.
        """
        wanted = {
            volume.name: f"/dev/mapper/{mapper_name(group.name)}-{mapper_name(volume.name)}"
            for volume in group.logical
            if volume.visible and "thin-pool" not in volume.segments
        }
        idle = [name for name, node in wanted.items() if node not in self._active_before(nodes)]
        if idle:
            thin = any("thin-pool" in volume.segments for volume in group.logical)
            if thin and len(idle) == len(wanted):
                self._activate(_config(), self._copies(nodes), "vgchange", [group.name])
            else:
                self._activate(_config(group.name), nodes, "lvchange", [f"{group.name}/{name}" for name in idle])
        lacking = [name for name, node in wanted.items() if not Path(node).exists()]
        if lacking:
            raise NotOpenedError(f"LVM does not activate {', '.join(lacking)}")
        return wanted

    def _activate(self, config: str, nodes: Sequence[str], verb: str, targets: Sequence[str]) -> None:
        limits = ["--config", config, "--devices", ",".join(nodes)]
        self._closing.callback(self._close, [verb, *limits, "--activate", "n", *targets], None)
        # -K: also volumes that are skipped at boot (lvchange(8), "--setactivationskip").
        self._do([verb, *limits, "--activate", "y", "-K", *targets], "LVM does not activate it")

    def _copies(self, nodes: Sequence[str]) -> list[str]:
        """Writable copies of physical volumes: a thin pool cannot be activated read-only."""
        made = []
        for node in nodes:
            name = f"{_PREFIX}copy-{node.removeprefix('/dev/').replace('/', '-')}"
            try:
                made.append(writable_copy(node, name, _MEMORY, self._runner, self._closing))
            except (ProcessError, RefusedError, OSError) as error:
                raise NotOpenedError(f"its thin pool needs a copy of {node}: {error}") from None
        return made

    def _active_before(self, nodes: Sequence[str]) -> set[str]:
        """What was built on devices before anything was opened here."""
        known = (device for disk in self._before for device in disk.descendants() if device.name in nodes)
        return {below.name for device in known for below in device.descendants()}

    def _children(self, nodes: Sequence[str]) -> tuple[BlockDevice, ...]:
        """What is built on devices already."""
        found = (device for disk in self.devices() for device in disk.descendants() if device.name in nodes)
        return tuple(child for device in found for child in device.children)

    def _opens(self, argv: Sequence[str], text: str | None) -> bool:
        secrets = (text,) if text else ()
        try:
            result = self._runner.run(
                argv, success=frozenset({0, _WRONG_KEY}), timeout=_TIMEOUT, stdin=text, secrets=secrets
            )
        except (ProcessError, RefusedError) as error:
            raise NotOpenedError(f"cryptsetup does not open it: {error.message.rstrip('.')}") from None
        return result.returncode == 0

    def _opened(self, name: str) -> str:
        self._settle()
        return f"/dev/mapper/{name}"

    def _do(self, argv: Sequence[str], what: str) -> None:
        try:
            self._runner.run(argv, timeout=_TIMEOUT)
        except (ProcessError, RefusedError) as error:
            raise NotOpenedError(f"{what}: {error.message.rstrip('.')}") from None
        self._settle()

    def _settle(self) -> None:
        self._runner.run(["udevadm", "settle", "--timeout=30"], success=frozenset({0, 1}), timeout=60)

    def _close(self, argv: Sequence[str], node: Path | None) -> None:
        """Close one thing; what stays open is said, and the others are closed all the same."""
        if node is not None and not node.exists():
            return
        for left in reversed(range(_TRIES)):
            try:
                with undisturbed():
                    self._settle()
                    self._runner.run(argv, timeout=_TIMEOUT)
                return
            except (ProcessError, RefusedError) as error:
                if not left:
                    text = f"{argv[-1]} was opened for the capture and does not close: {error.message}"
                    self._sink(Event(stage=Stage.CAPTURE, message=text, warning=True))


def _config(read_only: str = "") -> str:
    """lvm.conf(5): metadata are not written; the volumes of a group that is named are mapped read-only."""
    mapped = f'read_only_volume_list = [ "{read_only}" ] ' if read_only else ""
    return (
        f"global {{ metadata_read_only = 1 }} activation {{ {mapped}monitoring = 0 }} "
        "backup { backup = 0 archive = 0 } devices { obtain_device_list_from_udev = 0 }"
    )
