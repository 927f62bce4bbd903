"""A dos table as GPT.

Pure arithmetic on the table alone: partitions keep their bytes, their numbers and their ids. Whether a table is to be
converted, and where partitions go then, is decided by the fit.
"""

from uuid import UUID, uuid5

import msgspec

from images.model.layout import Partition, PartitionRole, PartitionTable, TableKind
from images.tables import c_gpt

#: Entries of a GPT that is made anew, and where they begin (UEFI specification 2.10, section 5.3.1).
ENTRY_COUNT = 128
ENTRIES_LBA = 2
#: Our own name space: GUIDs of a converted table follow from its disk signature, so that plans can be made again.
_NAMES = UUID("b86d2b43-2d50-5d0f-9d0c-8c1d2f0a6a57")

_LINUX = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
_BASIC = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
#: Microsoft's "hidden" types are the plain ones with 0x10 added.
_BASIC_TYPES = frozenset({0x01, 0x04, 0x06, 0x07, 0x0B, 0x0C, 0x0E})
_HIDDEN = 0x10
#: What each dos type is on GPT: the assignments of the systems' own documentation, as gdisk and libfdisk list them.
_TYPES = {
    **dict.fromkeys(_BASIC_TYPES, _BASIC),
    **dict.fromkeys((kind + _HIDDEN for kind in _BASIC_TYPES), _BASIC),
    0x27: c_gpt.RECOVERY_TYPE,
    0x39: UUID("c91818f9-8025-47af-89d2-f030d7000c2c"),  # Plan 9
    0x41: UUID("9e1a2d38-c612-4316-aa26-8b49521e5a8b"),  # PowerPC PReP boot
    0x82: UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"),  # Linux swap
    0x83: _LINUX,
    0x84: UUID("d3bfe2de-3daf-11df-ba40-e3a556d89593"),  # Intel Rapid Start
    0x8E: UUID("e6d6d379-f507-44c2-a23c-238f2a3df928"),  # Linux LVM
    0xA5: UUID("516e7cb4-6ecf-11d6-8ff8-00022d09712b"),  # FreeBSD
    0xA6: UUID("824cc7a0-36a8-11e3-890a-952519ad3f61"),  # OpenBSD
    0xA8: UUID("55465300-0000-11aa-aa11-00306543ecac"),  # Apple UFS
    0xAF: UUID("48465300-0000-11aa-aa11-00306543ecac"),  # Apple HFS+
    0xEA: UUID("bc13c2ff-59e6-4262-a352-b275fd6f7172"),  # Linux extended boot
    0xEB: UUID("42465331-3ba3-10f1-802a-4861696b7521"),  # Haiku
    0xEF: c_gpt.ESP_TYPE,
    0xFB: UUID("aa31e02a-400f-11db-9590-000c2911d1b8"),  # VMware VMFS
    0xFC: UUID("9d275380-40ad-11db-bf97-000c2911d1b8"),  # VMware core dump
    0xFD: UUID("a19d880f-05fc-4d3b-a006-743f0f84911e"),  # Linux RAID
}
#: A dynamic disk keeps its database in the last MiB of the disk, outside every partition.
_DYNAMIC_TYPE = 0x42
_LEGACY_BOOTABLE = 1 << 2
#: Basic data that gets no drive letter; recovery that Windows neither shows nor lets go (Microsoft, "GPT" attributes).
_BASIC_HIDDEN = 1 << 62
_RECOVERY_ATTRIBUTES = 1 << 63 | 1


class ConvertedTable(msgspec.Struct, frozen=True):
    """A table after conversion; not to be used when there are reasons against."""

    table: PartitionTable
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def to_gpt(table: PartitionTable) -> ConvertedTable:
    """A dos table as GPT.

    The extended partition goes, logical ones become ordinary and keep their numbers. Positions stay in the source's
    sectors; the usable LBAs follow from the target and are left at 0. The new GUIDs follow from the disk signature
    and the numbers.
    """
    reasons: list[str] = []
    notes: list[str] = []
    parts = [
        _as_gpt(part, table.identifier, reasons, notes)
        for part in table.partitions
        if part.role is not PartitionRole.EXTENDED
    ]
    made = PartitionTable(
        kind=TableKind.GPT,
        identifier=str(uuid5(_NAMES, table.identifier)),
        partitions=tuple(sorted(parts, key=lambda part: part.number)),
        entry_count=ENTRY_COUNT,
        entries_lba=ENTRIES_LBA,
        notes=table.notes,
    )
    return ConvertedTable(made, tuple(reasons), tuple(notes))


def _as_gpt(part: Partition, signature: str, reasons: list[str], notes: list[str]) -> Partition:
    try:
        kind = int(part.type, 16)
    except ValueError:
        kind = 0
    if kind == _DYNAMIC_TYPE:
        reasons.append(
            f"partition {part.number} belongs to a dynamic disk, whose database lies behind the partitions of a dos "
            "table: it cannot become GPT"
        )
    elif kind not in _TYPES:
        notes.append(f"Partition {part.number} has type {part.type}, which GPT does not know: it becomes Linux data.")
    guid = _TYPES.get(kind, _LINUX)
    attributes = _LEGACY_BOOTABLE if part.active else 0
    role = PartitionRole.PRIMARY
    if guid == c_gpt.RECOVERY_TYPE:
        role, attributes = PartitionRole.RECOVERY, attributes | _RECOVERY_ATTRIBUTES
    elif guid == c_gpt.ESP_TYPE:
        role = PartitionRole.ESP
    elif guid == _BASIC and kind not in _BASIC_TYPES:
        attributes |= _BASIC_HIDDEN
    return msgspec.structs.replace(
        part,
        type=str(guid),
        uuid=uuid5(_NAMES, f"{signature}/{part.number}"),
        attributes=attributes,
        active=False,
        role=role,
    )
