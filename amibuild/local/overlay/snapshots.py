"""Snapshots: what the store holds, as EC2 lists it; CreateSnapshot and DeleteSnapshot.

Sources: EC2 API reference, CreateSnapshot, DeleteSnapshot (InvalidSnapshot.InUse).
"""

from __future__ import annotations

import logging
import re
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.elastic_block_store import Snapshot
from moto.ec2.responses import EC2Response
from moto.ec2.utils import random_snapshot_id

from amibuild.errors import AmibuildError
from amibuild.local.life import Life
from amibuild.local.overlay.asked import refuse_parameters
from amibuild.local.overlay.desk import ACCOUNT, Desk, Refusal
from amibuild.local.overlay.stilldisk import disk_of, still_disk, writer
from amibuild.local.store import SnapshotInUse, SnapshotRecord

log = logging.getLogger(__name__)

_SNAPSHOT = re.compile(r"snap-(?:[0-9a-f]{8}|[0-9a-f]{17})")


@dataclass(frozen=True)
class Source:
    """The volume that a snapshot is of, as far as the books need it. It may be gone."""

    id: str
    size: int
    kms_key: str | None = None


class LocalSnapshot(Snapshot):
    """`record` is None until the store has it whole. `permissions`: accounts, or `all`."""

    __module__ = "moto.ec2.models.elastic_block_store"

    def __init__(
        self,
        backend: Any,
        *,
        snapshot_id: str,
        source: Source,
        description: str,
        owner_id: str,
        started: datetime,
        record: SnapshotRecord | None = None,
    ) -> None:
        super().__init__(
            backend,
            snapshot_id,
            source,
            description,
            kms_key_id=source.kms_key,
            owner_id=owner_id,
        )
        self.start_time = started
        self.record = record
        self.status = "completed" if record is not None else "pending"
        self.status_message: str | None = None
        self.permissions: list[str] = []
        self.is_copy = False
        self.done, self.total = 0, 0

    @property
    def progress(self) -> str:
        if self.status == "completed":
            return "100%"
        return f"{100 * self.done // self.total}%" if self.total else ""

    def advance(self, done: int, total: int) -> None:
        """Called while the disk is read. Raises: HostError once the endpoint ends."""
        self.done, self.total = done, total
        Desk.current.go_on()

    def fail(self, reason: str) -> None:
        self.status, self.status_message = "error", reason

    def may_be_used_by(self, account: str) -> bool:
        return self.owner_id == account or not {"all", account}.isdisjoint(self.permissions)


def others(backend: Any) -> list[Any]:
    """The same region's books of the other accounts: each has its own, of what it may see."""
    return [
        other
        for account, region, other in ec2_backends.iter_backends()
        if region == backend.region_name and account != backend.account_id
    ]


def own_snapshot(backend: Any, snapshot_id: str) -> LocalSnapshot:
    """The snapshot, which must be the caller's."""
    snapshot = known_snapshot(backend, snapshot_id)
    if snapshot.owner_id != backend.account_id:
        raise Refusal("AuthFailure", f"Not authorized for snapshot: {snapshot_id}")
    return snapshot


def known_snapshot(backend: Any, snapshot_id: str) -> LocalSnapshot:
    check_snapshot_id(snapshot_id)
    snapshot: LocalSnapshot | None = backend.snapshots.get(snapshot_id)
    if snapshot is None or not snapshot.may_be_used_by(backend.account_id):
        raise Refusal("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    return snapshot


def check_snapshot_id(snapshot_id: str) -> None:
    if not _SNAPSHOT.fullmatch(snapshot_id):
        raise Refusal("InvalidSnapshotID.Malformed", f'Invalid id: "{snapshot_id}"')


def check_completed(snapshot: LocalSnapshot) -> None:
    """Source: Error codes, IncorrectState; the words as Snaptastic saw them (issue 17)."""
    if snapshot.status != "completed":
        raise Refusal("IncorrectState", f"Snapshot '{snapshot.id}' is not 'completed'.")


class SnapshotBooks(EC2Backend):
    def load_snapshot(self, record: SnapshotRecord) -> LocalSnapshot:
        """Puts a snapshot of the store into the books."""
        snapshot = LocalSnapshot(
            self,
            snapshot_id=record.id,
            source=Source(record.volume_id, record.volume_size_gib, record.kms_key),
            description=record.description,
            owner_id=record.owner,
            started=record.started,
            record=record,
        )
        # Whoever else made one before there were permissions is a publisher of base images.
        public = record.owner != ACCOUNT and record.region is None
        snapshot.permissions = list(record.permissions) or (["all"] if public else [])
        self.snapshots[record.id] = snapshot
        self.tags[record.id].update(record.tags)
        return snapshot

    def pending_snapshot(self, volume: Any, description: str, snapshot_id: str) -> LocalSnapshot:
        """A snapshot in the books whose blocks are still being read."""
        key = getattr(volume, "kms_key_id", None) or self.default_kms_key_id
        return self.add_snapshot(
            Source(volume.id, volume.size, key if volume.encrypted else None),
            description,
            snapshot_id,
        )

    def add_snapshot(self, source: Source, description: str, snapshot_id: str) -> LocalSnapshot:
        snapshot = LocalSnapshot(
            self,
            snapshot_id=snapshot_id,
            source=source,
            description=description,
            owner_id=self.account_id,
            started=datetime.now(UTC),
        )
        self.snapshots[snapshot_id] = snapshot
        return snapshot

    def capture_snapshot(self, snapshot: LocalSnapshot, still: Path) -> SnapshotRecord:
        """Reads a disk into the store. Raises: HostError, OSError."""
        volume: Any = snapshot.volume
        return Desk.current.store.capture(
            still,
            snapshot.id,
            volume_size_gib=volume.size,
            description=snapshot.description,
            tags=self._tags_of(snapshot.id),
            owner=snapshot.owner_id,
            started=snapshot.start_time,
            region=self.region_name,
            volume_id=volume.id,
            kms_key=volume.kms_key,
            progress=snapshot.advance,
        )

    def complete_snapshot(self, snapshot: LocalSnapshot, record: SnapshotRecord) -> None:
        """The store has its blocks; from now on it has what the books say, too."""
        if self.snapshots.get(snapshot.id) is not snapshot:
            Desk.current.store.delete_snapshot(snapshot.id)  # deleted while it was pending
            return
        snapshot.record = record
        self.keep_snapshot(snapshot)
        snapshot.status = "completed"

    def keep_snapshot(self, snapshot: LocalSnapshot) -> None:
        """Writes what can change about it. A pending one is written once it is complete."""
        if snapshot.record is None:
            return
        said = snapshot.record.model_copy(
            update={
                "tags": self._tags_of(snapshot.id),
                "permissions": tuple(snapshot.permissions),
            }
        )
        if said != snapshot.record:
            Desk.current.store.put_snapshot(said)
            snapshot.record = said
        for other in others(self):
            other.load_snapshot(said)

    def create_snapshot(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("it makes one snapshot at a time, by CreateSnapshot")

    def copy_snapshot(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("see copies.py")

    def read_volume(
        self, snapshot: LocalSnapshot, held: AbstractContextManager[Any], still: Path
    ) -> None:
        """Fills a pending snapshot; lets go of the disk at the end."""
        desk = Desk.current
        with held:
            try:
                desk.before_capture()
                desk.go_on()
                record = self.capture_snapshot(snapshot, still)
                with desk.lock:
                    self.complete_snapshot(snapshot, record)
            except (AmibuildError, OSError) as error:
                log.warning("%s: %s", snapshot.id, error)
                with desk.lock:
                    snapshot.fail(str(error))

    def read_running_volume(self, snapshot: LocalSnapshot, life: Life, disk: Path) -> None:
        """The same of a disk that a machine writes to, as after a power cut."""
        try:
            with life.copying_disks([disk]) as (still,):
                self.read_volume(snapshot, nullcontext(), still)
        except (AmibuildError, OSError) as error:
            log.warning("%s: %s", snapshot.id, error)
            with Desk.current.lock:
                snapshot.fail(str(error))

    def delete_snapshot(self, snapshot_id: str) -> Any:
        snapshot = own_snapshot(self, snapshot_id)
        users = [
            image.id
            for image in self.amis.values()
            if snapshot_id in {used.id for used in image.snapshots}
        ]
        if users:
            raise _in_use(snapshot_id, users[0])
        # One whose record can't be read, too. One that is pending has none yet.
        try:
            Desk.current.store.delete_snapshot(snapshot_id)
        except SnapshotInUse as error:
            raise _in_use(snapshot_id, error.images[0]) from error
        for books in (self, *others(self)):
            books.snapshots.pop(snapshot_id, None)
            books.tags.pop(snapshot_id, None)
        return snapshot


def _in_use(snapshot_id: str, image_id: str) -> Refusal:
    return Refusal(
        "InvalidSnapshot.InUse",
        f"The snapshot {snapshot_id} is currently in use by {image_id}",
    )


class SnapshotResponses(EC2Response):
    params: dict[str, Any]

    def create_snapshot(self) -> ActionResult:
        backend, params = self.ec2_backend, self.params
        refuse_parameters(params, "OutpostArn", "Location")
        volume = backend.get_volume(params["VolumeId"])
        tags = self._parse_tag_specification()
        life = writer(volume)
        with ExitStack() as stack:
            still = stack.enter_context(still_disk(volume)) if life is None else None
            self.error_on_dryrun()
            snapshot = backend.pending_snapshot(
                volume, params.get("Description", ""), random_snapshot_id()
            )
            snapshot.add_tags(tags.get("snapshot", {}))
            held = stack.pop_all()
        answer = described_snapshot(backend, snapshot)
        if still is None:
            Desk.current.spawn(backend.read_running_volume, snapshot, life, disk_of(volume))
        else:
            Desk.current.spawn(backend.read_volume, snapshot, held, still)
        return ActionResult(answer)

    def delete_snapshot(self) -> ActionResult:
        backend, id_ = self.ec2_backend, self.params["SnapshotId"]
        own_snapshot(backend, id_)
        self.error_on_dryrun()
        backend.delete_snapshot(id_)
        return EmptyResult()


def described_snapshot(backend: Any, snapshot: LocalSnapshot) -> dict[str, Any]:
    """As DescribeSnapshots and CreateSnapshot answer. Only its owner sees the tags."""
    own = snapshot.owner_id == backend.account_id
    answer = {
        "SnapshotId": snapshot.id,
        "VolumeId": snapshot.volume_id,
        "VolumeSize": snapshot.volume_size,
        "Description": snapshot.description,
        "OwnerId": snapshot.owner_id,
        "StartTime": snapshot.start_time,
        "State": snapshot.status,
        "StateMessage": snapshot.status_message,
        "Progress": snapshot.progress,
        "Encrypted": snapshot.encrypted,
        "KmsKeyId": snapshot.kms_key_id,
        "StorageTier": "standard",
        "Tags": tag_list(backend, snapshot.id) if own else [],
    }
    return {key: value for key, value in answer.items() if value is not None}


def tag_list(backend: Any, id_: str) -> list[dict[str, str]]:
    return [{"Key": k, "Value": v} for k, v in backend.tags.get(id_, {}).items()]
