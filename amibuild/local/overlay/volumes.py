"""Volumes from snapshots: a raw file that can be plugged into a running machine.

Sources: EC2 API reference, CreateVolume (ClientToken makes it idempotent; creating, then
available or error), AttachVolume, DetachVolume (the instance need not be named).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_block_store import Volume
from moto.ec2.responses import EC2Response

from amibuild.errors import AmibuildError, HostError
from amibuild.local.overlay import launching
from amibuild.local.overlay.desk import Desk, Refusal

log = logging.getLogger(__name__)


class LocalVolume(Volume):
    """`phase` is its state while it is not ready, or never will be."""

    __module__ = "moto.ec2.models.elastic_block_store"

    phase: str | None = None

    @property
    def status(self) -> str:
        return self.phase or str(super().status)


def volume_file(volume_id: str) -> Path:
    return Desk.current.fleet.folder / "volumes" / f"{volume_id}.raw"


class VolumeBooks(EC2Backend):
    def fill_volume(self, volume: Any) -> None:
        """Puts the snapshot's blocks into a file of the volume's size."""
        desk, disk = Desk.current, volume_file(volume.id)
        phase = "error"
        try:
            disk.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            desk.store.materialise(volume.snapshot_id, disk, size_gib=volume.size)
            phase = ""
        except (AmibuildError, OSError) as error:
            log.warning("%s: %s", volume.id, error)
        with desk.lock:
            volume.phase = phase or None
            if volume.id not in self.volumes:
                disk.unlink(missing_ok=True)

    def delete_volume(self, volume_id: str) -> Any:
        volume = super().delete_volume(volume_id)
        if volume.phase != "creating":
            volume_file(volume_id).unlink(missing_ok=True)
        return volume


class VolumeResponses(EC2Response):
    params: dict[str, Any]

    def create_volume(self) -> ActionResult:
        backend, params = self.ec2_backend, self.params
        token, mark = params.get("ClientToken"), launching.fingerprint(params)
        known = backend.launched.get(token) if token else None
        if known is not None:
            if known.fingerprint != mark:
                raise launching.mismatch()
            return ActionResult(known.made)
        snapshot = backend.snapshots.get(params.get("SnapshotId"))
        if snapshot is None and params.get("SnapshotId"):
            raise Refusal(
                "InvalidSnapshot.NotFound",
                f"The snapshot '{params['SnapshotId']}' does not exist.",
            )
        if snapshot is not None:
            if snapshot.status != "completed":
                raise Refusal("IncorrectState", f"Snapshot is in invalid state - {snapshot.status}")
            size = int(params.get("Size", snapshot.volume_size))
            if size < snapshot.volume_size:
                raise Refusal(
                    "InvalidParameterValue",
                    f"The size of a volume can't be smaller than its snapshot: {size} < "
                    f"{snapshot.volume_size}",
                )
            self.params = {**params, "Size": size}
        result: ActionResult = super().create_volume()
        volume: Any = result.result
        if token:
            backend.launched[token] = launching.Launched(mark, volume)
        if snapshot is not None:
            volume.phase = "creating"
            Desk.current.spawn(backend.fill_volume, volume)
        return result

    def attach_volume(self) -> ActionResult:
        backend, params = self.ec2_backend, self.params
        launching.check_instance_ids([params["InstanceId"]])
        volume = backend.get_volume(params["VolumeId"])
        instance = backend.get_instance(params["InstanceId"])
        if volume.attachment is not None:
            raise Refusal("VolumeInUse", f"{volume.id} is already attached to an instance")
        if volume.phase is not None:
            raise Refusal("IncorrectState", f"Volume '{volume.id}' is {volume.phase}.")
        life = Desk.current.fleet.life(instance.id)
        machine = life.machine if life is not None else None
        if instance.state != "running" or machine is None:
            raise Refusal("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
        if params["Device"] in instance.block_device_mapping:
            raise Refusal(
                "InvalidParameterValue",
                f"Invalid value '{params['Device']}' for unixDevice. Attachment point "
                f"{params['Device']} is already in use",
            )
        self.error_on_dryrun()
        disk = volume_file(volume.id)
        if not disk.exists():
            raise Refusal(
                "UnsupportedOperation", "the local endpoint attaches volumes made from a snapshot"
            )
        try:
            machine.attach(disk, volume.id)
        except HostError as error:
            raise Refusal("UnsupportedOperation", str(error)) from error
        result: ActionResult = super().attach_volume()
        return result

    def detach_volume(self) -> ActionResult:
        """moto wants the instance and the device named; EC2 knows them."""
        volume = self.ec2_backend.get_volume(self.params["VolumeId"])
        if volume.attachment is None:
            raise Refusal("IncorrectState", f"Volume '{volume.id}' is in the 'available' state.")
        if volume.attachment.instance.state not in {"stopped", "terminated"}:
            raise Refusal(
                "UnsupportedOperation",
                "the local endpoint can't unplug a disk: stop or terminate the instance",
            )
        self.params = {
            **self.params,
            "InstanceId": volume.attachment.instance.id,
            "Device": volume.attachment.device,
        }
        result: ActionResult = super().detach_volume()
        return result
