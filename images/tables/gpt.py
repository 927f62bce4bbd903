"""The reader of GUID partition tables: header and entries checked, the backup used when it must be.

A GPT counts only behind a protective MBR (an entry of type 0xee), as for the kernel and for
firmware: a GPT without one is left over from an earlier life of the disk.
"""

import zlib
from uuid import UUID

import msgspec

from core.errors import DamagedError, DeviceError
from core.units import SECTOR_SIZES
from images.model.layout import Partition, PartitionRole, PartitionTable, TableKind
from images.sources import BlockSource
from images.tables import c_dos, c_gpt
from images.tables.damage import damaged, describe, refuse_overlaps
from images.tables.gpt_bytes import protective_tail

_ROLES = {
    c_gpt.ESP_TYPE: PartitionRole.ESP,
    c_gpt.BIOS_BOOT_TYPE: PartitionRole.BIOS_BOOT,
    c_gpt.MSR_TYPE: PartitionRole.MSR,
    c_gpt.RECOVERY_TYPE: PartitionRole.RECOVERY,
}


class _Copy(msgspec.Struct, frozen=True):
    """One of the two copies of a GPT, believed.

    Attributes:
        entries: those in use, by their numbers from 1.
        longer: whether entries in use say something behind their defined 128 bytes.
    """

    header: c_gpt.Header
    entries: tuple[tuple[int, c_gpt.Entry], ...]
    longer: bool


def has_protective_mbr(sector: bytes) -> bool:
    """Whether LBA 0 carries the signature and an entry of type 0xee (UEFI 5.2.3)."""
    mark = sector[c_dos.MARK_OFFSET : c_dos.RECORD_SIZE]
    return mark == c_dos.MARK and any(entry.type == c_dos.PROTECTIVE_TYPE for entry in c_dos.parse_entries(sector))


def has_primary_header(source: BlockSource) -> bool:
    """Whether LBA 1 begins like a GPT header."""
    if source.size < 2 * source.sector_size:
        return False
    return source.read_at(source.sector_size, 8) == c_gpt.SIGNATURE


def read_gpt(source: BlockSource) -> PartitionTable:
    """The table of a disk whose MBR is protective.

    Raises:
        DamagedError: neither copy can be believed, or the partitions contradict each other.
    """
    _refuse_other_sector_size(source)
    notes: list[str] = []
    copy = _believed(source, notes)
    header = copy.header
    if copy.longer:
        notes.append(f"the GPT has entries of {header.entry_size} bytes; what they say behind byte 128 is not kept")
    partitions = _partitions(source, copy, notes)
    return PartitionTable(
        kind=TableKind.GPT,
        identifier=str(header.disk_guid),
        partitions=partitions,
        first_usable_lba=header.first_usable_lba,
        last_usable_lba=header.last_usable_lba,
        entry_count=header.entry_count,
        entry_size=header.entry_size,
        entries_lba=header.entries_lba if header.my_lba == 1 else _primary_entries_lba(source),
        mbr=_unusual_mbr(source, notes),
        notes=tuple(notes),
    )


def _believed(source: BlockSource, notes: list[str]) -> _Copy:
    """The primary, or the backup where the primary is damaged."""
    primary, fault = _try_copy(source, 1)
    if primary is not None:
        notes += _notes_on_backup(source, primary)
        return primary
    last = source.size // source.sector_size - 1
    backup, backup_fault = _try_copy(source, last)
    pointed = _alternate_lba(source)
    if backup is None and pointed not in (None, 1, last):
        assert pointed is not None
        backup = _try_copy(source, pointed)[0]
        notes += (
            [f"the backup GPT lies at LBA {pointed}, not in the last sector of the disk ({last})"] if backup else []
        )
    if backup is None:
        raise DamagedError(
            f"{describe(source)}: neither copy of the GPT can be believed. Primary: {fault} Backup: {backup_fault}",
            hint="gdisk's recovery menu can look for a table; liferaft changes nothing on a source.",
        )
    notes.insert(0, f"the primary GPT is damaged, the backup was used: {fault}")
    return backup


def _alternate_lba(source: BlockSource) -> int | None:
    """Where a primary header that is not believed itself says that the backup lies; the backup proves itself."""
    if not has_primary_header(source):
        return None
    return c_gpt.parse_header(source.read_at(source.sector_size, source.sector_size)).alternate_lba


def _primary_entries_lba(source: BlockSource) -> int:
    """Where the primary's entries lie when the backup had to be used: as a sound header says, else where all do."""
    try:
        return _read_header(source, 1).entries_lba
    except (DamagedError, DeviceError):
        return 2


def _refuse_other_sector_size(source: BlockSource) -> None:
    """A table written for the other sector size would otherwise look like damage."""
    if has_primary_header(source):
        return
    for size in SECTOR_SIZES:
        if size != source.sector_size and source.size >= 2 * size and source.read_at(size, 8) == c_gpt.SIGNATURE:
            raise DamagedError(
                f"{describe(source)}: its GPT lies at byte {size}: it was written with sectors of {size} bytes, "
                f"but is read with sectors of {source.sector_size}.",
                hint=f"Say that its logical sector size is {size}.",
            )


def _try_copy(source: BlockSource, lba: int) -> tuple[_Copy | None, str]:
    """The copy whose header lies at ``lba``, or why it cannot be believed."""
    try:
        return _parse_copy(*read_copy(source, lba)), ""
    except (DamagedError, DeviceError) as error:
        return None, error.message


def read_copy(source: BlockSource, lba: int) -> tuple[c_gpt.Header, bytes]:
    """The copy whose header lies at ``lba``: the header, and its entries as they lie there, checksums proven.

    Raises:
        DamagedError: it cannot be believed. DeviceError: it cannot be read.
    """
    header = _read_header(source, lba)
    offset = header.entries_lba * source.sector_size
    content = source.read_at(offset, header.entry_count * header.entry_size)
    if zlib.crc32(content) != header.entries_crc:
        raise damaged(
            source, offset, "CRC of the entries", f"{header.entries_crc:#010x}", f"{zlib.crc32(content):#010x}"
        )
    return header, content


def _parse_copy(header: c_gpt.Header, content: bytes) -> _Copy:
    entries = ((n + 1, c_gpt.parse_entry(content, n * header.entry_size)) for n in range(header.entry_count))
    used = tuple((number, entry) for number, entry in entries if entry.type != c_gpt.UNUSED_TYPE)
    longer = any(
        any(content[(number - 1) * header.entry_size + c_gpt.ENTRY_SIZE : number * header.entry_size])
        for number, _ in used
    )
    return _Copy(header, used, longer)


def _read_header(source: BlockSource, lba: int) -> c_gpt.Header:
    """A header whose every bound holds, so that reading what it names is safe."""
    sectors, sector_size = source.size // source.sector_size, source.sector_size
    offset = lba * sector_size
    if not 0 < lba < sectors:
        raise damaged(source, offset, "header", f"an LBA below {sectors}", lba)
    sector = source.read_at(offset, sector_size)
    header = c_gpt.parse_header(sector)
    if header.signature != c_gpt.SIGNATURE:
        raise damaged(source, offset, "signature", c_gpt.SIGNATURE, header.signature)
    if not c_gpt.HEADER_SIZE <= header.header_size <= sector_size:
        raise damaged(source, offset + 12, "header size", f"{c_gpt.HEADER_SIZE} to {sector_size}", header.header_size)
    checksum = c_gpt.header_checksum(sector, header.header_size)
    if checksum != header.header_crc:
        found = f"{checksum:#010x}"
        raise damaged(source, offset + 16, "CRC of the header", f"{header.header_crc:#010x}", found)
    if header.my_lba != lba:
        raise damaged(source, offset + 24, "its own LBA", lba, header.my_lba)
    if not header.first_usable_lba <= header.last_usable_lba + 1 <= sectors:
        found = f"{header.first_usable_lba} to {header.last_usable_lba}"
        raise damaged(source, offset + 40, "usable LBAs", f"a range below {sectors}", found)
    if header.entry_size < c_gpt.ENTRY_SIZE or header.entry_size % 8 or header.entry_size > 4096:
        raise damaged(source, offset + 84, "size of an entry", "128 to 4096, a multiple of 8", header.entry_size)
    size = header.entry_count * header.entry_size
    if not 0 < size <= c_gpt.MAX_ENTRIES_SIZE:
        raise damaged(
            source,
            offset + 80,
            "number of entries",
            f"at most {c_gpt.MAX_ENTRIES_SIZE} bytes of them",
            header.entry_count,
        )
    if not 1 < header.entries_lba < sectors or header.entries_lba * sector_size + size > source.size:
        raise damaged(source, offset + 72, "LBA of the entries", f"inside {sectors} sectors", header.entries_lba)
    return header


def _notes_on_backup(source: BlockSource, primary: _Copy) -> list[str]:
    last = source.size // source.sector_size - 1
    where = primary.header.alternate_lba
    backup, fault = _try_copy(source, where)
    if backup is None:
        return [f"the backup GPT is damaged, the primary was used: {fault}"]
    notes = []
    if where != last:
        notes.append(f"the backup GPT lies at LBA {where}, not in the last sector of the disk ({last})")
    if _claims(backup) != _claims(primary):
        notes.append("the backup GPT differs from the primary, the primary was used")
    return notes


def _claims(copy: _Copy) -> tuple[object, ...]:
    """What both copies must agree in."""
    header = copy.header
    usable = header.first_usable_lba, header.last_usable_lba
    return header.disk_guid, usable, header.entry_count, header.entry_size, copy.entries


def _unusual_mbr(source: BlockSource, notes: list[str]) -> str:
    """The end of LBA 0 in hex, unless it is the protective MBR that such a disk usually has."""
    sector = source.read_at(0, c_dos.RECORD_SIZE)
    others = [entry for entry in c_dos.parse_entries(sector) if entry.type not in (0, c_dos.PROTECTIVE_TYPE)]
    if others:
        notes.append(f"the MBR is hybrid: it has {len(others)} entries beside the protective one; the GPT was used")
    tail = sector[c_dos.BOOT_CODE_SIZE :]
    return "" if tail == protective_tail(source.size // source.sector_size) else tail.hex()


def _partitions(source: BlockSource, copy: _Copy, notes: list[str]) -> tuple[Partition, ...]:
    sectors, header = source.size // source.sector_size, copy.header
    offset = header.entries_lba * source.sector_size
    partitions = []
    seen: set[UUID] = set()
    for number, entry in copy.entries:
        where = offset + (number - 1) * header.entry_size
        if not 1 < entry.first_lba <= entry.last_lba < sectors:
            found = f"{entry.first_lba} to {entry.last_lba}"
            raise damaged(source, where + 32, f"LBAs of partition {number}", f"a range inside {sectors} sectors", found)
        if entry.first_lba < header.first_usable_lba or entry.last_lba > header.last_usable_lba:
            notes.append(f"partition {number} reaches outside the usable LBAs of its table")
        if entry.uuid in seen:
            notes.append(f"partition {number} has the same GUID as another one: {entry.uuid}")
        seen.add(entry.uuid)
        name = c_gpt.decode_name(entry.name)
        partitions.append(
            Partition(
                id=f"part{number}",
                number=number,
                start_lba=entry.first_lba,
                sector_count=entry.last_lba - entry.first_lba + 1,
                type=str(entry.type),
                role=_ROLES.get(entry.type, PartitionRole.PRIMARY),
                uuid=entry.uuid,
                name=name,
                name_utf16="" if c_gpt.encode_name(name) == entry.name else entry.name.hex(),
                attributes=entry.attributes,
            )
        )
    refuse_overlaps(source, offset, partitions)
    return tuple(partitions)
