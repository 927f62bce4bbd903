"""md arrays: made again with their identity, level and geometry, by mdadm.

Parity and mirrors. An array that has just been created knows nothing of what its members hold:

- RAID 1 and 10 are created as clean (``--assume-clean``). Every sector that somebody will read was written through the
  array, and so is on every mirror; sectors never written may differ between mirrors, and nobody reads those.
- RAID 4, 5 and 6 are not. A small write updates parity from the old parity (read-modify-write), so that parity which
  was wrong before stays wrong, and the day a disk fails it gives wrong data for sectors that *were* written. md's
  own initial synchronisation runs behind the restore and gives way to it (md(4), "speed_limit_min"); where it stopped
  is in the superblocks, and it goes on when the restored machine starts. Until then the array has no redundancy, as any
  array that was made a moment ago.
- An array that lacks members is made lacking them. RAID 4 and 5 have nothing to synchronise then, for their parity is
  what is missing. RAID 6 that lacks one has; mdadm makes it lacking two and gives md the other one to fill, for md does
  not start an array that is both dirty and degraded (drivers/md/raid5.c, raid5_run), as this one would be after a
  restart.

It does not decide which devices are members, and writes nothing but superblocks and what md itself synchronises.
"""

from collections.abc import Mapping
from pathlib import Path

from core.errors import DeviceError, LiferaftError
from core.process import Runner
from images.model.stack import Array, ArrayMember

TOOLS = ("mdadm",)
_KIB = 1024
_TIMEOUT = 600.0
_PARITY = frozenset({4, 5, 6})
#: Formats whose data begins at the member's first byte (md(4), "MD SUPER BLOCK").
_DATA_FIRST = frozenset({"0.90", "1.0"})


def create_array(array: Array, nodes: Mapping[str, str], runner: Runner, *, fill: bool = False) -> str:
    """Make an array again and start it.

    Args:
        nodes: device nodes of its members by their ids; their old signatures were wiped.
        fill: as large as the members allow, instead of the size it had.

    Returns:
        its device node.

    Raises:
        DeviceError: it is not the array that was wanted. LiferaftError: one with its UUID is running already.
    """
    check_free(array, runner)
    node = f"/dev/md/{free_name(array, Path('/dev/md'))}"
    runner.run(create_words(array, node, nodes, fill=fill), timeout=_TIMEOUT)
    try:
        runner.run(["udevadm", "settle", "--timeout=30"], timeout=60)
        _check(array, node, runner, fill=fill)
    except BaseException:
        stop_array(node, runner)
        raise
    return node


def synchronises(array: Array) -> bool:
    """Whether md has parity to reckon when an array has been made, and no redundancy, or less, until that is done."""
    return array.level in _PARITY and array.lacking <= (1 if array.level == 6 else 0)


def check_free(array: Array, runner: Runner) -> None:
    """Whether the array can be made on this machine; LiferaftError when one with its UUID is running."""
    if array.uuid in runner.run(["mdadm", "--detail", "--scan"], timeout=60).stdout:
        raise LiferaftError(
            f"An array with the UUID {array.uuid} is running on this machine.",
            hint="Detach the disks it lies on, or stop it: mdadm --stop",
        )


def stop_array(node: str, runner: Runner) -> None:
    """Stop an array; a synchronisation under way goes on when it is started again."""
    runner.run(["udevadm", "settle", "--timeout=30"], timeout=60)
    runner.run(["mdadm", "--stop", node], timeout=_TIMEOUT)


def free_name(array: Array, folder: Path) -> str:
    """The array's own name where this machine has none of that name, as its boot loader's tools expect it."""
    own = array.name.rpartition(":")[2] or array.id
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in own).lstrip("-.") or array.id
    return f"liferaft-{array.id}" if (folder / safe).exists() else safe


def create_words(array: Array, node: str, nodes: Mapping[str, str], *, fill: bool) -> list[str]:
    """mdadm's command line for an array."""
    # --run: mdadm asks whether members that look used should be used; the plan that was confirmed says so.
    words = ["mdadm", "--create", node, "--run", f"--uuid={array.uuid}", f"--metadata={array.metadata}"]
    words += [f"--level={array.level}", f"--raid-devices={array.slots}", *_name_words(array)]
    if array.chunk_size:
        words.append(f"--chunk={array.chunk_size // _KIB}K")
    if array.layout:
        words.append(f"--layout={array.layout}")
    if array.component_size and array.level != 0 and not fill:
        words.append(f"--size={array.component_size // _KIB}K")
    words.append(f"--bitmap={'internal' if array.bitmap else 'none'}")
    if array.level not in _PARITY:
        words.append("--assume-clean")
    spares = [member for member in array.members if member.slot is None]
    if spares:
        words.append(f"--spare-devices={len(spares)}")
    by_slot = {member.slot: member for member in array.members if member.slot is not None}
    placed: list[ArrayMember | None] = [by_slot.get(slot) for slot in range(array.slots)]
    offsets = {member.data_offset for member in array.members}
    single = len(offsets) == 1
    if array.metadata not in _DATA_FIRST:
        words.append(f"--data-offset={offsets.copy().pop() // _KIB}K" if single else "--data-offset=variable")
    else:
        single = True
    for member in (*placed, *spares):
        if member is None:
            words.append("missing")
        else:
            words.append(nodes[member.device] + ("" if single else f":{member.data_offset // _KIB}K"))
    return words


def _name_words(array: Array) -> list[str]:
    """``host:name``: mdadm takes the two apart. Format 0.90 has no name."""
    if array.metadata == "0.90" or not array.name:
        return []
    host, colon, name = array.name.rpartition(":")
    return [f"--homehost={host if colon else '<none>'}", f"--name={name}"]


def _check(array: Array, node: str, runner: Runner, *, fill: bool) -> None:
    told = runner.run(["mdadm", "--detail", "--export", node], timeout=60).stdout
    facts = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    size = int(runner.run(["blockdev", "--getsize64", node], timeout=60).stdout)
    for field, expected, found in (
        ("MD_UUID", array.uuid, facts.get("MD_UUID", "")),
        ("MD_LEVEL", f"raid{array.level}", facts.get("MD_LEVEL", "")),
        ("MD_NAME", array.name, facts.get("MD_NAME", array.name)),
    ):
        if found != expected:
            raise DeviceError(f"{node}: {field} of the array that mdadm made is {found!r}, expected {expected!r}.")
    if size < array.size or (size > array.size and not fill):
        raise DeviceError(f"{node}: the array that mdadm made has {size} bytes, expected {array.size}.")
