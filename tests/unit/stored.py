"""Disks and records that the tests of the store share."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from amibuild.local.store import ImageRecord, ParameterRecord, SnapshotRecord, Store

NOW = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
FIRST, SECOND = "snap-0000000000000001a", "snap-0000000000000002b"
AMI = "ami-0000000000000001a"


def make_disk(path: Path, pieces: dict[int, bytes], size: int = 8 << 20) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)
    return path


def capture(store: Store, disk: Path, snapshot_id: str = FIRST) -> SnapshotRecord:
    return store.capture(disk, snapshot_id, volume_size_gib=1, owner="111122223333")


def image(snapshot_id: str = FIRST) -> ImageRecord:
    return ImageRecord(
        id=AMI,
        name="game-host-2026.11.22.1",
        owner="111122223333",
        created=NOW,
        snapshot_id=snapshot_id,
        volume_size_gib=1,
        tags={"amibuild:image": "game-host"},
    )


def parameter(value: str = "ami-1") -> ParameterRecord:
    return ParameterRecord(name="/a/b", value=value, version=1, last_modified=NOW)


def head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)
