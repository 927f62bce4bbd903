"""LVM volume groups: made again from LVM's own backup text, with the UUIDs of every layer.

``pvcreate --uuid --restorefile`` gives each physical volume its UUID and the place of its first extent,
``vgcfgrestore`` writes the group's metadata; both are LVM's documented way after a disk was replaced (vgcfgrestore(8)).
What the backup does not hold is the content of a thin pool's own metadata: see ``thin.py``. Every command sees the
group's own members only (``--devices``), so that a group of the same name elsewhere in the machine is neither found
nor touched.
"""

import json
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from core.errors import DamagedError, DeviceError, LiferaftError, ProcessError, RefusedError
from core.process import Runner
from images.model.layout import Layout
from images.model.stack import PhysicalVolume, VolumeGroup
from images.stack.nodes import mapper_name
from restore.stack.lvm_copies import copies

TOOLS = ("pvcreate", "vgcfgrestore", "vgchange", "lvs", "pvs", "wipefs")
#: Segment types that come back whole. Others keep content of their own beside the data (raid, mirror, cache, snapshot).
RESTORABLE = frozenset({"linear", "striped", "thin", "thin-pool"})
MAPPED = Path("/dev/mapper")
_TIMEOUT = 600.0
_SECTOR = 512
#: Text of a backup: LVM's largest metadata areas are some MiB.
_LONGEST_REPORT = 64 << 20


def create_group(group: VolumeGroup, nodes: Mapping[str, str], runner: Runner, *, fronts: Collection[str] = ()) -> None:
    """Make the physical volumes and the group again; nothing is activated.

    Args:
        nodes: device nodes of its members by their ids.
        fronts: members whose first sector was put back (a boot sector stands before LVM's label).

    Raises:
        RefusedError: it has volumes that cannot be made again. LiferaftError: the machine has a group of that name.
        ProcessError: LVM's tools did not take it.
    """
    check_free(group)
    limits = member_words(group, nodes)
    with tempfile.TemporaryDirectory(prefix="liferaft-lvm-") as folder:
        backup = Path(folder) / "backup"
        backup.write_text(group.backup)
        for member in group.members:
            node = nodes[member.device]
            front = _front(node) if member.device in fronts else b""
            # Inside an array or an opened container nobody wiped yet, and pvcreate would ask.
            runner.run(["wipefs", "--all", "--quiet", node], timeout=_TIMEOUT)
            words = ["--uuid", member.uuid, "--restorefile", str(backup), *_copies_words(group, member, node)]
            runner.run(["pvcreate", *limits, *words, node], timeout=_TIMEOUT)
            if front:
                _put_front(node, front)
        # --force is what vgcfgrestore wants for thin pools, whose metadata it cannot know; thin.py makes that.
        force = ["--force"] if has_thin(group) else []
        runner.run(["vgcfgrestore", *limits, *force, "--file", str(backup), group.name], timeout=_TIMEOUT)
    _check_uuids(group, limits, runner)


def check_free(group: VolumeGroup, mapped: Path = MAPPED) -> None:
    """Whether the group can be made on this machine.

    Args:
        mapped: the folder of device-mapper's nodes.

    Raises:
        RefusedError: it has volumes that cannot be made again. LiferaftError: the machine has a group of that name.
    """
    strange = sorted({kind for volume in group.volumes for kind in volume.segments} - RESTORABLE)
    if strange:
        raise RefusedError(
            f"Volume group {group.name} has volumes of type {', '.join(strange)}, which are not made again."
        )
    # Not /dev/NAME: that may be any folder of this machine (a group may be called "disk"), or an old link.
    taken = [name for name in _mapped_names(group) if os.path.lexists(mapped / name)]
    if taken:
        raise LiferaftError(
            f"This machine has a volume {mapped / taken[0]}: a volume group named {group.name} is active on it.",
            hint=f"Deactivate it (vgchange -an {group.name}) or detach its disks.",
        )


def activate_group(group: VolumeGroup, nodes: Mapping[str, str], runner: Runner) -> dict[str, str]:
    """Activate a group; returns the nodes of its volumes by their ids (a thin pool has none)."""
    limits = member_words(group, nodes)
    # -K: volumes too that are passed over at boot (lvchange(8), "--setactivationskip").
    runner.run(["vgchange", *limits, "--activate", "y", "-K", group.name], timeout=_TIMEOUT)
    runner.run(["udevadm", "settle", "--timeout=30"], timeout=60)
    return {
        volume.id: str(MAPPED / _mapped_name(group.name, volume.name))
        for volume in group.volumes
        if "thin-pool" not in volume.segments
    }


def deactivate_group(group: VolumeGroup, nodes: Mapping[str, str], runner: Runner) -> None:
    """Let go of all volumes of a group."""
    # udev looks at every device that was written; while it does, the device is busy.
    runner.run(["udevadm", "settle", "--timeout=30"], timeout=60)
    runner.run(["vgchange", *member_words(group, nodes), "--activate", "n", group.name], timeout=_TIMEOUT)


def extend_volume(group: VolumeGroup, volume: str, nodes: Mapping[str, str], runner: Runner) -> int:
    """Give a volume all the room that members larger than before brought.

    Args:
        volume: its name.

    Returns:
        its size now, bytes.

    Raises:
        ProcessError: LVM found the room not usable (a striped volume needs it on all its members).
    """
    limits = member_words(group, nodes)
    free_before = _free_extents(group, limits, runner)
    for member in group.members:
        runner.run(["pvresize", *limits, nodes[member.device]], timeout=_TIMEOUT)
    # What was free before stays free: somebody left it, for snapshots perhaps.
    gained = _free_extents(group, limits, runner) - free_before
    name = f"{group.name}/{volume}"
    if gained > 0:
        try:
            runner.run(["lvextend", *limits, "--extents", f"+{gained}", name], timeout=_TIMEOUT)
        except ProcessError as error:
            hint = "The data is in place; only the growing failed. Grow it later with lvextend."
            raise ProcessError(error.argv, error.returncode, error.output, hint=hint) from None
    return int(report_rows("lvs", ["lv_size"], [*limits, name], runner)[0]["lv_size"])


def has_thin(group: VolumeGroup) -> bool:
    """Whether a thin pool is in it."""
    return any("thin-pool" in volume.segments or "thin" in volume.segments for volume in group.volumes)


def is_thin(layout: Layout, device: str) -> bool:
    """Whether a device is a thin volume."""
    groups = (container for container in layout.containers if isinstance(container, VolumeGroup))
    return any("thin" in volume.segments for group in groups for volume in group.volumes if volume.id == device)


def member_words(group: VolumeGroup, nodes: Mapping[str, str]) -> list[str]:
    """The option that lets LVM see the group's members and nothing else."""
    return ["--devices", ",".join(nodes[member.device] for member in group.members)]


def report_rows(program: str, fields: list[str], words: list[str], runner: Runner) -> list[dict[str, str]]:
    """Rows of an LVM report, sizes in bytes.

    Raises:
        DamagedError: the program did not print a report.
    """
    options = ["--reportformat", "json", "--units", "b", "--nosuffix", "--options", ",".join(fields)]
    text = runner.run([program, *options, *words], timeout=_TIMEOUT).stdout
    try:
        if len(text) > _LONGEST_REPORT:
            raise ValueError(f"{len(text)} bytes")
        document: Any = json.loads(text)
        (section,) = document["report"]
        (rows,) = section.values()
        return [{field: str(row[field]) for field in fields} for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{program} did not print the report that was asked for: {error!r}.") from None


def _mapped_name(group: str, volume: str) -> str:
    return f"{mapper_name(group)}-{mapper_name(volume)}"


def _mapped_names(group: VolumeGroup) -> list[str]:
    """All mappings a group has while it is active, those inside its thin pools included."""
    names = [volume.name for volume in group.volumes]
    pools = [volume.name for volume in group.volumes if "thin-pool" in volume.segments]
    names += [f"{pool}{part}" for pool in pools for part in ("_tdata", "_tmeta")]
    return [_mapped_name(group.name, name) for name in names]


def _copies_words(group: VolumeGroup, member: PhysicalVolume, node: str) -> list[str]:
    """The option for another number of copies of the metadata than pvcreate makes unasked."""
    if member.metadata_areas == 1:
        return []
    with Path(node).open("rb") as stream:
        room = stream.seek(0, os.SEEK_END)
    return ["--pvmetadatacopies", str(copies(group, member, room))]


def _front(node: str) -> bytes:
    with Path(node).open("rb") as stream:
        return stream.read(_SECTOR)


def _put_front(node: str, front: bytes) -> None:
    """The first sector is nobody's: LVM's label is in the second."""
    with Path(node).open("r+b") as stream:
        stream.write(front)
        stream.flush()
        os.fsync(stream.fileno())


def _free_extents(group: VolumeGroup, limits: list[str], runner: Runner) -> int:
    return int(report_rows("vgs", ["vg_free_count"], [*limits, group.name], runner)[0]["vg_free_count"])


def _check_uuids(group: VolumeGroup, limits: list[str], runner: Runner) -> None:
    """Every layer carries the UUID it had."""
    found = {row["vg_uuid"] for row in report_rows("vgs", ["vg_uuid"], [*limits, group.name], runner)}
    found |= {row["pv_uuid"] for row in report_rows("pvs", ["pv_uuid"], limits, runner)}
    found |= {row["lv_uuid"] for row in report_rows("lvs", ["lv_uuid"], [*limits, group.name], runner)}
    wanted = {group.uuid, *(member.uuid for member in group.members), *(volume.uuid for volume in group.volumes)}
    if wanted - found:
        lacking = ", ".join(sorted(wanted - found))
        raise DeviceError(f"Volume group {group.name} was made again, but without the UUIDs {lacking}.")
