"""What would stop the making of a stack half-way, found before the first write: keys, names, and this kernel.

A key is tried on the header in the repository: cryptsetup tests it on a plain file.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from core.errors import LiferaftError, RefusedError
from core.process import Runner
from images.model.manifest import Manifest, Volume
from images.model.stack import Luks, VolumeGroup
from images.stack.keys import Keys
from images.store.repository import Repository
from restore.plan.plan import Plan
from restore.plan.steps import OpenLuks, Step, container_of
from restore.stack import luks, lvm, md
from restore.stack.mountable import modules_of

#: Times a person is asked for the passphrase of one container.
_TRIES = 3
#: A header with all key slots is some MiB; LUKS2 allows 128.
_LARGEST_HEADER = 256 << 20


def stack_reasons(steps: Sequence[Step], runner: Runner) -> list[str]:
    """Why this machine cannot make the stack of a plan; empty when it can."""
    reasons: list[str] = []
    for container in (found for step in steps if (found := container_of(step)) is not None):
        for module in sorted(modules_of(container)):
            # Built in or loadable: 0. It is loaded, which the first command would do as well.
            if runner.run(["modprobe", "--quiet", module], success=frozenset({0, 1}), timeout=60).returncode:
                reasons.append(f"this system's kernel has no {module}, which {container.id} needs")
        try:
            if isinstance(container, Luks):
                luks.free_name(container, Path("/dev/mapper"))
            elif isinstance(container, VolumeGroup):
                lvm.check_free(container)
            else:
                md.check_free(container, runner)
        except LiferaftError as error:
            reasons.append(error.message.rstrip("."))
    return list(dict.fromkeys(reasons))


def unlocked(
    steps: Sequence[Step], keys: Keys, repository: Repository, point: str, manifest: Manifest, runner: Runner
) -> tuple[Keys, list[str]]:
    """The keys, with what a person was asked for, and a reason for every container that none of them opens."""
    reasons: list[str] = []
    for step in (step for step in steps if isinstance(step, OpenLuks)):
        container = step.container
        volume = next((volume for volume in manifest.volumes if _lies_on(volume, container.device)), None)
        if volume is None or not container.payload_offset <= volume.size <= _LARGEST_HEADER:
            reasons.append(f"the recovery point has no header of the LUKS container {container.id}")
            continue
        with tempfile.NamedTemporaryFile(prefix="liferaft-header-") as file:
            file.truncate(volume.size)
            where = f"recovery point {point[:12]}, the header of {container.id}"
            for slot in repository.slots(volume, where):
                if slot.id is not None:
                    file.seek(slot.number * repository.chunk_size)
                    file.write(repository.read_chunk(slot.id, where))
            file.flush()
            keys, opens = _opening(container, Path(file.name), keys, runner)
        if not opens:
            reasons.append(f"none of the {len(keys)} keys that were given opens the LUKS container {container.id}")
    return keys, reasons


def _opening(container: Luks, header: Path, keys: Keys, runner: Runner) -> tuple[Keys, bool]:
    """Ask, while nothing opens it and there is somebody to ask."""
    if luks.header_opens(header, keys, runner):
        return keys, True
    for _ in range(_TRIES if keys.ask is not None else 0):
        assert keys.ask is not None
        answer = keys.ask(f"{container.label or container.name or container.id} ({container.uuid})")
        if not answer:
            break
        if luks.header_opens(header, Keys(passphrases=(answer,)), runner):
            return keys.with_passphrase(answer), True
    return keys, False


def _lies_on(volume: Volume, device: str) -> bool:
    """Whether a volume begins where a device begins."""
    return device == (volume.partition or volume.disk)


def check_stack(plan: Plan, keys: Keys, repository: Repository, manifest: Manifest, runner: Runner) -> Keys:
    """The keys that open every container of a plan.

    Raises:
        RefusedError: with every reason why this machine cannot make its stack.
    """
    reasons = stack_reasons(plan.steps, runner)
    keys, closed = unlocked(plan.steps, keys, repository, plan.recovery_point, manifest, runner)
    reasons += closed
    if reasons:
        hint = "Give its key with --luks-key or --luks-passphrase-file." if closed else ""
        raise RefusedError(
            f"The stack cannot be made here: {reasons[0]}. Nothing was written.", hint=hint, reasons=tuple(reasons)
        )
    return keys
