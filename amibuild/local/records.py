"""What the store remembers about images, snapshots and parameters, and how a record is filed.

A record's file is JSON with a checksum over the record, so that a cut or changed file is noticed.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from amibuild.local import durable
from amibuild.local.durable import FORMAT, StoreDamaged, StoreTooNew

# SSM keeps the last 100 versions of a parameter (PutParameter).
VERSIONS_KEPT = 100


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def key(self) -> str:
        """The name of its file."""
        raise NotImplementedError


class SnapshotRecord(Record):
    """A whole snapshot: one that is still being captured has no record.

    `data_bytes` is what its blocks take without sharing; `blocks_sha256` is over the list of them,
    so two snapshots with the same one hold the same disk. `region` is None where every region has
    it. `kms_key` is an ARN. `permissions` are the accounts that may use it, or `all`.
    """

    id: str = Field(pattern=r"^snap-[0-9a-f]{8,17}$")
    volume_size_gib: int
    description: str = ""
    started: datetime
    tags: dict[str, str] = {}
    owner: str
    state: Literal["completed"] = "completed"
    blocks: int
    data_bytes: int
    blocks_sha256: str
    region: str | None = None
    volume_id: str = "vol-ffffffff"
    encrypted: bool = False
    kms_key: str | None = None
    permissions: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.id


class DeviceRecord(Record):
    """One entry of an image's block device mapping. Without a snapshot its volume begins empty."""

    name: str
    snapshot_id: str | None = None
    size_gib: int
    volume_type: str = "gp3"
    delete_on_termination: bool = True
    iops: int | None = None
    throughput: int | None = None


class Permission(Record):
    """Who may launch an image: one of these is set."""

    user: str | None = None
    group: str | None = None
    organization: str | None = None
    unit: str | None = None


class ImageRecord(Record):
    """`facts` is what the local target knows about it, such as `made` and `definition`.

    `snapshot_id` and `volume_size_gib` are the root device's. `devices` are all of them, empty in
    records of format 1. `token` is the client token that made it, `asked` what came with it.
    """

    id: str = Field(pattern=r"^ami-[0-9a-f]{8,17}$")
    name: str
    description: str = ""
    owner: str
    created: datetime
    architecture: str = "x86_64"
    boot_mode: str | None = "uefi"
    ena: bool = True
    imds_support: str | None = None
    sriov: str | None = "simple"
    tpm: str | None = None
    virtualization: str = "hvm"
    root_device: str = "/dev/xvda"
    snapshot_id: str | None = None
    volume_size_gib: int
    tags: dict[str, str] = {}
    source_instance: str | None = None
    facts: dict[str, str] = {}
    state: Literal["available", "disabled"] = "available"
    devices: tuple[DeviceRecord, ...] = ()
    permissions: tuple[Permission, ...] | None = None
    source_image: str | None = None
    source_region: str | None = None
    deprecation: datetime | None = None
    protection: Literal["disabled", "enabled-with-cooldown", "enabled-without-cooldown"] = (
        "disabled"
    )
    protected_until: datetime | None = None
    last_launched: datetime | None = None
    token: str | None = None
    asked: str = ""

    @property
    def key(self) -> str:
        return self.id

    @property
    def snapshot_ids(self) -> set[str]:
        """Every snapshot that it needs."""
        named = {device.snapshot_id for device in self.devices} | {self.snapshot_id}
        return {id_ for id_ in named if id_ is not None}


class ParameterVersion(Record):
    value: str
    version: int
    type: str = "String"
    data_type: str = "text"
    description: str | None = None
    last_modified: datetime
    labels: tuple[str, ...] = ()
    tier: str = "Standard"
    allowed_pattern: str | None = None


class ParameterRecord(ParameterVersion):
    """The current version of a parameter; `history` has the older ones, oldest first."""

    name: str
    tags: dict[str, str] = {}
    history: tuple[ParameterVersion, ...] = ()

    @property
    def key(self) -> str:
        # A name may be longer than a file's, and has slashes.
        return hashlib.sha256(self.name.encode()).hexdigest()[:40]

    def changed(
        self,
        value: str,
        now: datetime,
        *,
        type: str | None = None,
        data_type: str | None = None,
        description: str | None = None,
    ) -> ParameterRecord:
        """The record after an overwriting PutParameter: one version more, this one in `history`."""
        old = ParameterVersion(**self.model_dump(include=set(ParameterVersion.model_fields)))
        return self.model_copy(
            update={
                "value": value,
                "version": self.version + 1,
                "type": type or self.type,
                "data_type": data_type or self.data_type,
                "description": self.description if description is None else description,
                "last_modified": now,
                "labels": (),
                "history": (*self.history, old)[-(VERSIONS_KEPT - 1) :],
            }
        )


R = TypeVar("R", bound=Record)


class Drawer(Generic[R]):
    """A folder of records of one kind, read once and held in memory."""

    def __init__(self, folder: Path, kind: type[R], temporary: Path) -> None:
        self._folder = folder
        self._kind = kind
        self._temporary = temporary
        self._records: dict[str, R] = {}
        self.damaged: dict[str, StoreDamaged] = {}
        folder.mkdir(exist_ok=True)
        for path in sorted(folder.glob("*.json")):
            try:
                record = self._read(path)
            except StoreDamaged as damage:
                self.damaged[path.stem] = damage
            else:
                self._records[record.key] = record

    def all(self) -> tuple[R, ...]:
        return tuple(self._records.values())

    def get(self, key: str) -> R | None:
        """Raises: StoreDamaged when it was there once."""
        if key in self.damaged:
            raise self.damaged[key]
        return self._records.get(key)

    def put(self, record: R) -> None:
        path = self._folder / f"{record.key}.json"
        durable.write_whole(path, _pack(record), temporary=self._temporary)
        self._records[record.key] = record
        self.damaged.pop(record.key, None)

    def delete(self, key: str) -> None:
        """Removes it, damaged or not; nothing happens when it isn't there."""
        if key in self._records or key in self.damaged:
            (self._folder / f"{key}.json").unlink(missing_ok=True)
            durable.sync_folder(self._folder)
        self._records.pop(key, None)
        self.damaged.pop(key, None)

    def _read(self, path: Path) -> R:
        try:
            envelope = json.loads(path.read_bytes())
            version, checksum = envelope["format"], envelope["sha256"]
            body = json.dumps(envelope["record"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreDamaged(path, f"it is not a record ({type(error).__name__})") from error
        if isinstance(version, int) and version > FORMAT:
            raise StoreTooNew(path.parent.parent, version, FORMAT)
        try:
            record = self._kind.model_validate_json(body)
        except ValidationError as error:
            raise StoreDamaged(path, "it is not a record of its kind") from error
        if _checksum(envelope["record"]) != checksum or record.key != path.stem:
            raise StoreDamaged(path, "its checksum is wrong")
        return record


def _pack(record: BaseModel) -> bytes:
    body = record.model_dump(mode="json")
    envelope = {"format": FORMAT, "sha256": _checksum(body), "record": body}
    return json.dumps(envelope, indent=1).encode() + b"\n"


def _checksum(body: object) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
