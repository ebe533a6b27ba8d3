"""What of the store can't be used, as EC2's clients see it: a state and a reason, not a gap.

A snapshot whose file or block is cut, or gone, is in state `error`, and its images are `failed`;
an image whose own record can't be read is `invalid`, under its id. None of them launches; each can
be deregistered or deleted. Source: EC2 API reference, Image (state, stateReason) and Snapshot
(status, statusMessage).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from moto.ec2.models import EC2Backend
from moto.ec2.models.instances import StateReason

from amibuild.local.durable import StoreDamaged
from amibuild.local.overlay.desk import Desk
from amibuild.local.overlay.snapshots import LocalSnapshot, Source
from amibuild.local.store import ImageRecord

CODE = "Server.InternalError"
# A volume's id where none is known.
NONE = "ffffffff"


class DamageBooks(EC2Backend):
    def load_missing_snapshots(self, images: Sequence[ImageRecord]) -> None:
        """Entries for the snapshots that images name and the store lacks, before the images."""
        for image in images:
            for id_ in image.snapshot_ids - set(self.snapshots):
                self._load_missing(id_, image)

    def mark_damage(self) -> None:
        """To be called once all is in the books that can be."""
        store = Desk.current.store
        for id_, damage in store.damaged_images().items():
            self._load_unreadable(id_, damage)
        for id_, damage in store.survey().lost.items():
            self.snapshot_lost(id_, damage)

    def snapshot_lost(self, snapshot_id: str, damage: StoreDamaged) -> None:
        """Its images don't launch any longer."""
        with Desk.current.lock:
            snapshot: Any = self.snapshots.get(snapshot_id)
            if snapshot is None:
                return
            snapshot.status, snapshot.status_message = "error", damage.message
            for image in self.amis.values():
                if snapshot in image.snapshots and image.state == "available":
                    image.state = "failed"
                    image.state_reason = StateReason(damage.message, CODE)

    def _load_missing(self, snapshot_id: str, image: ImageRecord) -> None:
        damage = Desk.current.store.missing_snapshot(snapshot_id)
        snapshot = LocalSnapshot(
            self,
            snapshot_id=snapshot_id,
            source=Source(f"vol-{NONE}", image.volume_size_gib),
            description="",
            owner_id=image.owner,
            started=image.created,
        )
        snapshot.status, snapshot.status_message = "error", damage.message
        self.snapshots[snapshot_id] = snapshot

    def _load_unreadable(self, image_id: str, damage: StoreDamaged) -> None:
        changed = datetime.fromtimestamp(damage.path.stat().st_mtime, UTC)
        record = ImageRecord(
            id=image_id,
            name=image_id,
            description=damage.message,
            owner=self.account_id,
            created=changed,
            snapshot_id=f"snap-{NONE}",
            volume_size_gib=1,
        )
        self._load_missing(f"snap-{NONE}", record)
        self.load_image(record)
        image: Any = self.amis[image_id]
        image.kept, image.state = False, "invalid"
        image.state_reason = StateReason(damage.message, CODE)
        del self.snapshots[f"snap-{NONE}"]
