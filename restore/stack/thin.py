"""Thin pools: their own metadata made again, empty, with the device ids that the group knows.

LVM's backup text says of a thin pool where its data and its metadata lie, its transaction id, and the number of each
thin volume in it; which block of which volume lies where is in the pool's metadata device alone. Blocks get new
places when the volumes are streamed, so that metadata with all volumes and no blocks is what a restore needs.
``thin_restore`` writes it from XML (thin_restore(8)), onto a linear mapping over the extents of the hidden metadata
volume: LVM itself activates that one read-only, and refuses the pool while its metadata is not sound.

All UUIDs stay. Blocks that volumes shared (snapshots) are no longer shared.
"""

import html
import re
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec

from core.errors import DamagedError
from core.process import Runner
from core.stopping import lasting
from images.model.stack import VolumeGroup
from restore.stack.lvm import member_words, report_rows

TOOLS = ("dmsetup", "thin_restore", "thin_check")
_SECTOR = 512
_TIMEOUT = 900.0
_RANGE = re.compile(r"^(?P<device>.+):(?P<first>\d+)-(?P<last>\d+)$")
_FIELDS = ["lv_name", "segtype", "seg_start", "seg_size", "seg_pe_ranges", "pool_lv", "thin_id", "transaction_id"]
_FIELDS += ["chunk_size", "metadata_lv", "data_lv", "lv_size"]


class Piece(msgspec.Struct, frozen=True):
    """Part of a volume on one device: all in bytes."""

    start: int
    size: int
    device: str
    offset: int


class ThinVolume(msgspec.Struct, frozen=True):
    """A thin volume as its pool knows it: its number, and the transaction that made it."""

    number: int
    transaction: int


class ThinPool(msgspec.Struct, frozen=True, kw_only=True):
    """A thin pool as LVM reports it.

    Attributes:
        metadata: where its metadata volume lies, in order.
        block_size, data_size: bytes.
        volumes: by their numbers.
    """

    name: str
    transaction: int
    block_size: int
    data_size: int
    metadata: tuple[Piece, ...]
    volumes: tuple[ThinVolume, ...]


def make_pools_empty(group: VolumeGroup, nodes: Mapping[str, str], runner: Runner) -> None:
    """Write fresh metadata into every thin pool of a group that is not active.

    Raises:
        DamagedError: LVM's report does not say what is needed. ProcessError: a tool failed.
    """
    limits = member_words(group, nodes)
    rows = report_rows("lvs", _FIELDS, [*limits, "--all", "--segments", group.name], runner)
    starts = report_rows("pvs", ["pv_name", "pe_start"], limits, runner)
    for pool in thin_pools(rows, {row["pv_name"]: int(row["pe_start"]) for row in starts}, group.extent_size):
        _write(group, pool, runner)


def thin_pools(rows: list[dict[str, str]], starts: Mapping[str, int], extent_size: int) -> tuple[ThinPool, ...]:
    """The pools in a report of segments.

    Args:
        rows: of ``lvs --all --segments``, sizes in bytes.
        starts: where the first extent lies on each physical volume, bytes.

    Raises:
        DamagedError: a pool's metadata does not lie on physical volumes in one piece after another.
    """
    named = [{**row, "lv_name": _bare(row["lv_name"])} for row in rows]
    pools = []
    for row in (row for row in named if row["segtype"] == "thin-pool"):
        metadata, data = _bare(row["metadata_lv"]), _bare(row["data_lv"])
        pieces = [_piece(found, starts, extent_size) for found in named if found["lv_name"] == metadata]
        pieces.sort(key=lambda piece: piece.start)
        sizes = [int(found["lv_size"]) for found in named if found["lv_name"] == data]
        at = 0
        for piece in pieces:
            if piece.start != at:
                raise DamagedError(
                    f"The metadata volume {metadata} of thin pool {row['lv_name']} has a hole at byte {at}."
                )
            at += piece.size
        if not at or not sizes:
            raise DamagedError(f"LVM does not say where thin pool {row['lv_name']} keeps its metadata and data.")
        volumes = [
            ThinVolume(int(found["thin_id"]), int(found["transaction_id"]))
            for found in named
            if found["segtype"] == "thin" and _bare(found["pool_lv"]) == row["lv_name"]
        ]
        pools.append(
            ThinPool(
                name=row["lv_name"],
                transaction=int(row["transaction_id"]),
                block_size=int(row["chunk_size"]),
                data_size=sizes[0],
                metadata=tuple(pieces),
                volumes=tuple(sorted(volumes, key=lambda volume: volume.number)),
            )
        )
    return tuple(pools)


def metadata_xml(pool: ThinPool) -> str:
    """The pool's metadata as thin_restore reads it: all volumes, no blocks."""
    head: dict[str, int | str] = {
        "uuid": "",
        "time": 0,
        "transaction": pool.transaction,
        "version": 2,
        "data_block_size": pool.block_size // _SECTOR,
        "nr_data_blocks": pool.data_size // pool.block_size,
    }
    lines = [f"<superblock {_attributes(head)}>"]
    for volume in pool.volumes:
        device: dict[str, int | str] = {"dev_id": volume.number, "mapped_blocks": 0, "transaction": volume.transaction}
        lines.append(f"  <device {_attributes(device | {'creation_time': 0, 'snap_time': 0})}></device>")
    return "\n".join([*lines, "</superblock>", ""])


def mapping_table(pool: ThinPool) -> str:
    """The device-mapper table that lays the pieces of a pool's metadata side by side, a line each."""
    return "".join(
        f"{piece.start // _SECTOR} {piece.size // _SECTOR} linear {piece.device} {piece.offset // _SECTOR}\n"
        for piece in pool.metadata
    )


def _write(group: VolumeGroup, pool: ThinPool, runner: Runner) -> None:
    name = f"liferaft-{group.id}-{pool.name}-metadata"
    create = partial(runner.run, ["dmsetup", "create", name], stdin=mapping_table(pool), timeout=60)
    with lasting(create, lambda _: _remove(name, runner)):
        with tempfile.TemporaryDirectory(prefix="liferaft-thin-") as folder:
            document = Path(folder) / "metadata.xml"
            document.write_text(metadata_xml(pool))
            runner.run(["thin_restore", "-i", str(document), "-o", f"/dev/mapper/{name}"], timeout=_TIMEOUT)
        runner.run(["thin_check", f"/dev/mapper/{name}"], timeout=_TIMEOUT)


def _remove(name: str, runner: Runner) -> None:
    runner.run(["udevadm", "settle", "--timeout=30"], success=frozenset({0, 1}), timeout=60)
    runner.run(["dmsetup", "remove", name], timeout=60)


def _piece(row: Mapping[str, str], starts: Mapping[str, int], extent_size: int) -> Piece:
    match = _RANGE.match(row["seg_pe_ranges"])
    if row["segtype"] != "linear" or match is None or match["device"] not in starts:
        raise DamagedError(
            f"Volume {row['lv_name']}: a {row['segtype']} segment at {row['seg_pe_ranges']!r} is no range of a disk."
        )
    offset = starts[match["device"]] + int(match["first"]) * extent_size
    return Piece(int(row["seg_start"]), int(row["seg_size"]), match["device"], offset)


def _bare(name: str) -> str:
    """LVM shows hidden volumes in brackets."""
    return name.removeprefix("[").removesuffix("]")


def _attributes(values: Mapping[str, int | str]) -> str:
    return " ".join(f'{name}="{html.escape(str(value))}"' for name, value in values.items())
