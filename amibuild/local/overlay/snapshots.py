"""Snapshots: what the store holds, as EC2 lists it.

Sources: EC2 API reference, DeleteSnapshot (InvalidSnapshot.InUse), DescribeSnapshots.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_block_store import Snapshot
from moto.ec2.responses import EC2Response

from amibuild.local.overlay.desk import Desk, Refusal
from amibuild.local.store import SnapshotRecord

_SNAPSHOT = re.compile(r"snap-(?:[0-9a-f]{8}|[0-9a-f]{17})")


@dataclass(frozen=True)
class Source:
    """The volume that a snapshot is of, as far as the books need it. It may be gone."""

    id: str
    size: int
    encrypted: bool = False


class LocalSnapshot(Snapshot):
    """`record` is None until the store has it whole."""

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
            encrypted=source.encrypted,
            owner_id=owner_id,
        )
        self.start_time = started
        self.record = record
        self.status = "completed" if record is not None else "pending"
        self.status_message: str | None = None
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


class SnapshotBooks(EC2Backend):
    def load_snapshot(self, record: SnapshotRecord) -> LocalSnapshot:
        """Puts a snapshot of the store into the books."""
        snapshot = LocalSnapshot(
            self,
            snapshot_id=record.id,
            source=Source("vol-ffffffff", record.volume_size_gib),
            description=record.description,
            owner_id=record.owner,
            started=record.started,
            record=record,
        )
        self.snapshots[record.id] = snapshot
        self.tags[record.id].update(record.tags)
        return snapshot

    def pending_snapshot(self, volume: Any, description: str, snapshot_id: str) -> LocalSnapshot:
        """A snapshot in the books whose blocks are still being read."""
        snapshot = LocalSnapshot(
            self,
            snapshot_id=snapshot_id,
            source=Source(volume.id, volume.size, volume.encrypted),
            description=description,
            owner_id=self.account_id,
            started=datetime.now(UTC),
        )
        self.snapshots[snapshot_id] = snapshot
        return snapshot

    def create_snapshot(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("snapshots are made by CreateImage here")

    def copy_snapshot(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("snapshots are made by CreateImage here")

    def delete_snapshot(self, snapshot_id: str) -> Any:
        if not _SNAPSHOT.fullmatch(snapshot_id):
            raise Refusal("InvalidSnapshotID.Malformed", f'Invalid id: "{snapshot_id}"')
        snapshot = self.snapshots.get(snapshot_id)
        if snapshot is None:
            raise Refusal(
                "InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist."
            )
        users = [a.id for a in self.amis.values() if a.ebs_snapshot.id == snapshot_id]
        if users:
            raise Refusal(
                "InvalidSnapshot.InUse",
                f"The snapshot {snapshot_id} is currently in use by {users[0]}",
            )
        if snapshot.owner_id != self.account_id:
            raise Refusal("AuthFailure", f"Not authorized for snapshot: {snapshot_id}")
        self.snapshots.pop(snapshot_id)
        self.tags.pop(snapshot_id, None)
        if snapshot.record is not None:
            Desk.current.store.delete_snapshot(snapshot_id)
        return snapshot


class SnapshotResponses(EC2Response):
    def describe_snapshots(self) -> ActionResult:
        """moto leaves OwnerIds out, and so lists the base image's snapshot as ours."""
        ids = self.params.get("SnapshotIds", [])
        for id_ in ids:
            if not _SNAPSHOT.fullmatch(id_):
                raise Refusal("InvalidSnapshotID.Malformed", f'Invalid id: "{id_}"')
            if id_ not in self.ec2_backend.snapshots:
                raise Refusal("InvalidSnapshot.NotFound", f"The snapshot '{id_}' does not exist.")
        found = self.ec2_backend.describe_snapshots(
            snapshot_ids=ids, filters=self._filters_from_querystring()
        )
        owners = {
            self.ec2_backend.account_id if owner == "self" else owner
            for owner in self.params.get("OwnerIds", [])
        }
        return ActionResult({"Snapshots": [s for s in found if not owners or s.owner_id in owners]})
