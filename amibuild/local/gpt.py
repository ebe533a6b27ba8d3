"""The partition table of a raw disk: written, read and grown without other programs.

`sfdisk` does the same, but syncs the whole disk each time: 0.5 to 1.1 s for every launch, measured
on a disk whose 400 MB had just been written.
Source: UEFI specification 2.10, section 5.3 (GUID Partition Table).
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from amibuild.errors import HostError

SECTOR = 512
MIB = 1 << 20
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX_ROOT_X86_64 = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")

_SIGNATURE = b"EFI PART"
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_ENTRIES = 128
_TABLE_SECTORS = _ENTRIES * _ENTRY.size // SECTOR
_FIRST_USABLE = 2 + _TABLE_SECTORS


@dataclass(frozen=True)
class Partition:
    """`offset` and `size` are bytes; `number` counts from 1."""

    number: int
    offset: int
    size: int
    kind: uuid.UUID
    guid: uuid.UUID
    name: str


@dataclass(frozen=True)
class Table:
    guid: uuid.UUID
    partitions: tuple[Partition, ...]


def write(disk: Path, table: Table) -> None:
    """Writes the protective MBR and both copies of the table for the size that the file has."""
    sectors = disk.stat().st_size // SECTOR
    entries = _pack_entries(table.partitions)
    with disk.open("r+b") as file:
        file.write(_protective_mbr(sectors))
        file.write(_pack_header(table.guid, entries, own=1, other=sectors - 1, table=2))
        file.write(entries)
        file.seek((sectors - 1 - _TABLE_SECTORS) * SECTOR)
        file.write(entries)
        backup = sectors - 1 - _TABLE_SECTORS
        file.write(_pack_header(table.guid, entries, own=sectors - 1, other=1, table=backup))


def read(disk: Path) -> Table:
    """The first copy of the table.

    Raises: HostError when there is none, or a checksum is wrong.
    """
    with disk.open("rb") as file:
        file.seek(SECTOR)
        raw = file.read(_HEADER.size)
        if len(raw) < _HEADER.size or not raw.startswith(_SIGNATURE):
            raise HostError(f"{disk} has no GPT partition table")
        fields = _HEADER.unpack(raw)
        checked = raw[:16] + b"\0\0\0\0" + raw[20:]
        count, size = fields[11], fields[12]
        file.seek(fields[10] * SECTOR)
        entries = file.read(count * size)
    if zlib.crc32(checked) != fields[3] or zlib.crc32(entries) != fields[13]:
        raise HostError(f"the partition table of {disk} is damaged")
    found = [
        _unpack_entry(number, entries[(number - 1) * size :][: _ENTRY.size])
        for number in range(1, count + 1)
    ]
    return Table(uuid.UUID(bytes_le=fields[9]), tuple(p for p in found if p is not None))


def spread(table: Table, disk_size: int) -> Table:
    """The same table with its last partition reaching to the end of a disk of `disk_size` bytes.

    It ends at a whole MiB, as the partitions start: the last one holds the table's second copy.
    """
    last = max(table.partitions, key=lambda p: p.offset)
    end = disk_size // MIB * MIB - MIB
    grown = replace(last, size=end - last.offset)
    return replace(table, partitions=tuple(grown if p is last else p for p in table.partitions))


def _protective_mbr(sectors: int) -> bytes:
    size = min(sectors - 1, 0xFFFFFFFF)
    entry = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, size)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def _pack_header(guid: uuid.UUID, entries: bytes, *, own: int, other: int, table: int) -> bytes:
    last_usable = max(own, other) - _TABLE_SECTORS - 1
    fields = (_SIGNATURE, 0x10000, _HEADER.size, 0, 0, own, other, _FIRST_USABLE, last_usable)
    rest = (guid.bytes_le, table, _ENTRIES, _ENTRY.size, zlib.crc32(entries))
    crc = zlib.crc32(_HEADER.pack(*fields, *rest))
    fields = (*fields[:3], crc, *fields[4:])
    return _HEADER.pack(*fields, *rest).ljust(SECTOR, b"\0")


def _pack_entries(partitions: Sequence[Partition]) -> bytes:
    table = bytearray(_ENTRIES * _ENTRY.size)
    for p in partitions:
        first, last = p.offset // SECTOR, (p.offset + p.size) // SECTOR - 1
        name = p.name.encode("utf-16-le")
        entry = (p.kind.bytes_le, p.guid.bytes_le, first, last, 0, name)
        _ENTRY.pack_into(table, (p.number - 1) * _ENTRY.size, *entry)
    return bytes(table)


def _unpack_entry(number: int, raw: bytes) -> Partition | None:
    kind, guid, first, last, _flags, name = _ENTRY.unpack(raw)
    if kind == bytes(16):
        return None
    return Partition(
        number=number,
        offset=first * SECTOR,
        size=(last - first + 1) * SECTOR,
        kind=uuid.UUID(bytes_le=kind),
        guid=uuid.UUID(bytes_le=guid),
        name=name.decode("utf-16-le").rstrip("\0"),
    )
