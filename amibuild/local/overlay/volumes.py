"""Volumes: raw files that machines start with, or that are plugged into them while they run.

They last as long as the endpoint, as its machines do; a snapshot of one lasts longer.
Sources: EC2 API reference, CreateVolume (ClientToken makes it idempotent; creating, then
available or error), AttachVolume, DetachVolume (the instance need not be named; detaching, and
busy while the machine still uses it), VolumeAttachment; "Error codes".
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_block_store import Volume, VolumeAttachment
from moto.ec2.responses import EC2Response

from amibuild.errors import AmibuildError, HostError, WaitTimeout
from amibuild.local import sparse
from amibuild.local.durable import StoreDamaged
from amibuild.local.machines.base import DataVolume, Machine
from amibuild.local.overlay import launching
from amibuild.local.overlay.desk import Desk, Refusal
from amibuild.wait import Look, until

log = logging.getLogger(__name__)

GIB = 1 << 30
# On EC2 such a volume is `busy` for as long as the machine has it mounted.
BUSY_S = 30.0
LONGEST_DETACH_S = 24 * 3600.0
# EBS User Guide, "Amazon EBS volume types".
SIZES_GIB = {
    "gp3": range(1, 65_537),
    "gp2": range(1, 16_385),
    "io2": range(4, 65_537),
    "io1": range(4, 16_385),
    "st1": range(125, 16_385),
    "sc1": range(125, 16_385),
    "standard": range(1, 1025),
}


class LocalVolume(Volume):
    """`phase` is its state while it is not ready, or never will be."""

    __module__ = "moto.ec2.models.elastic_block_store"

    phase: str | None = None

    @property
    def status(self) -> str:
        return self.phase or str(super().status)

    @property
    def attachments(self) -> list[VolumeAttachment]:
        """DeleteOnTermination is the instance's word, which ModifyInstanceAttribute may change."""
        found = list(super().attachments)
        for one in found:
            block = one.instance.block_device_mapping.get(one.device)
            one.delete_on_termination = bool(block and block.delete_on_termination)
        return found


def volume_file(volume_id: str) -> Path:
    """The disk of every volume but an instance's root, whose disk its machine owns."""
    return Desk.current.fleet.folder / "volumes" / f"{volume_id}.raw"


def is_root(volume: Any) -> bool:
    attachment = volume.attachment
    return bool(attachment and attachment.device == attachment.instance.root_device_name)


def leave_to_reader(disk: Path) -> None:
    """A snapshot that is being made of it has another name for the file, and must not see what is
    written from now on: so it keeps the file, and the volume gets a copy. Raises: OSError.
    """
    if disk.stat().st_nlink > 1:
        copy = disk.with_suffix(".copy")
        copy.unlink(missing_ok=True)
        sparse.copy(disk, copy)
        copy.replace(disk)


class VolumeBooks(EC2Backend):
    def fill_volume(self, volume: Any) -> None:
        """Makes its file: the snapshot's blocks, or nothing, in a file of the volume's size."""
        phase = "error"
        try:
            self._write(volume)
            phase = ""
        except (AmibuildError, OSError) as error:
            log.warning("%s: %s", volume.id, error)
        with Desk.current.lock:
            volume.phase = phase or None
            if volume.id not in self.volumes:
                volume_file(volume.id).unlink(missing_ok=True)

    def fill_data_volumes(self, instance: Any) -> None:
        """Those of a launch, before its machine starts. Raises: AmibuildError; OSError."""
        for volume in self._data_volumes(instance):
            self._write(volume)

    def data_volumes(self, instance: Any) -> tuple[DataVolume, ...]:
        """What its machine starts with besides the root disk."""
        with Desk.current.lock:
            found = self._data_volumes(instance)
            # One that the last machine was asked to let go of is not for the next.
            kept = [volume for volume in found if volume.attachment.status == "attached"]
            return tuple(DataVolume(v.id, volume_file(v.id)) for v in kept)

    def _data_volumes(self, instance: Any) -> list[Any]:
        with Desk.current.lock:
            blocks = [block for _, block in instance.get_block_device_mapping]
            found = [self.volumes[block.volume_id] for block in blocks]
            return [volume for volume in found if not is_root(volume)]

    def _write(self, volume: Any) -> None:
        desk, disk = Desk.current, volume_file(volume.id)
        disk.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if volume.snapshot_id:
            try:
                desk.store.materialise(volume.snapshot_id, disk, size_gib=volume.size)
            except StoreDamaged as damage:
                self.snapshot_lost(volume.snapshot_id, damage)
                raise
        else:
            with disk.open("xb") as file:
                file.truncate(volume.size * GIB)

    def release(self, volume: Any, attachment: Any, machine: Machine) -> None:
        """Waits until the machine lets go of the volume, which may be never."""

        def look() -> Look[bool]:
            Desk.current.go_on()
            gone = volume.attachment is not attachment or machine.detach(volume.id)
            return Look("in use", gone or None)

        try:
            try:
                until(look, what=f"{volume.id} to be let go", timeout_s=BUSY_S)
            except WaitTimeout as error:
                log.info("%s: is it mounted?", error)
                attachment.status = "busy"
                until(look, what=f"{volume.id} to be let go", timeout_s=LONGEST_DETACH_S)
        except AmibuildError as error:
            log.warning("%s: %s", volume.id, error)
            attachment.status = "attached"
            return
        with Desk.current.lock:
            if volume.attachment is attachment:
                self.detach_volume(volume.id, attachment.instance.id, attachment.device)

    def delete_volume(self, volume_id: str) -> Any:
        volume = super().delete_volume(volume_id)
        if volume.phase != "creating":
            volume_file(volume_id).unlink(missing_ok=True)
        return volume


def _check_asked(backend: Any, params: dict[str, Any]) -> None:
    kind, zone = params.get("VolumeType", "gp2"), params.get("AvailabilityZone")
    if kind not in SIZES_GIB:
        raise Refusal("UnknownVolumeType", f"Unsupported volume type '{kind}' for volume creation.")
    if zone and backend.get_zone_by_name(zone) is None:
        raise Refusal("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")
    size, allowed = params.get("Size"), SIZES_GIB[kind]
    if size is None or int(size) in allowed:
        return
    small = int(size) < allowed.start
    too, edge = ("small", "minimum") if small else ("large", "maximum")
    limit = allowed.start if small else allowed[-1]
    raise Refusal(
        "InvalidParameterValue",
        f"Volume of {size}GiB is too {too} for volume type {kind}; {edge} is {limit}GiB.",
    )


class VolumeResponses(EC2Response):
    params: dict[str, Any]

    def create_volume(self) -> ActionResult:
        backend, params = self.ec2_backend, self.params
        _check_asked(backend, params)
        snapshot = backend.snapshots.get(params.get("SnapshotId"))
        if snapshot is None and params.get("SnapshotId"):
            raise Refusal(
                "InvalidSnapshot.NotFound",
                f"The snapshot '{params['SnapshotId']}' does not exist.",
            )
        if snapshot is None and params.get("Size") is None:
            raise Refusal(
                "MissingParameter", "The request must contain the parameter size/snapshot"
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
        volume.size = int(volume.size)
        volume.phase = "creating"
        Desk.current.spawn(backend.fill_volume, volume)
        return result

    def modify_volume(self) -> ActionResult:
        """Larger only, and while no machine has it: what runs would not see it."""
        volume, size = self.ec2_backend.get_volume(self.params["VolumeId"]), self.params.get("Size")
        kind = self.params.get("VolumeType", volume.volume_type)
        _check_asked(self.ec2_backend, {"VolumeType": kind, "Size": size})
        if size and int(size) < volume.size:
            raise Refusal(
                "InvalidParameterValue",
                f"New size cannot be smaller than existing size. (Volume: {volume.id})",
            )
        if size and volume.attachment is not None:
            raise Refusal(
                "UnsupportedOperation",
                f"the local endpoint makes no attached volume larger: detach {volume.id} first",
            )
        if size and volume.phase is not None:
            raise Refusal("IncorrectState", f"Volume '{volume.id}' is {volume.phase}.")
        self.error_on_dryrun()
        if size:
            self.params = {**self.params, "Size": int(size)}
            os.truncate(volume_file(volume.id), int(size) * GIB)
        result: ActionResult = super().modify_volume()
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
        if volume.availability_zone != instance.availability_zone:
            raise Refusal(
                "InvalidVolume.ZoneMismatch",
                f"The volume '{volume.id}' is not in the same availability zone as instance "
                f"'{instance.id}'",
            )
        life = Desk.current.fleet.life(instance.id)
        machine = life.machine if life is not None else None
        if instance.state != "stopped" and (instance.state != "running" or machine is None):
            raise Refusal("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
        if params["Device"] in instance.block_device_mapping:
            raise Refusal(
                "InvalidParameterValue",
                f"Invalid value '{params['Device']}' for unixDevice. Attachment point "
                f"{params['Device']} is already in use",
            )
        self.error_on_dryrun()
        leave_to_reader(volume_file(volume.id))
        if machine is not None:
            try:
                machine.attach(DataVolume(volume.id, volume_file(volume.id)))
            except HostError as error:
                raise Refusal("UnsupportedOperation", str(error)) from error
        result: ActionResult = super().attach_volume()
        return result

    def detach_volume(self) -> ActionResult:
        """moto wants the instance and the device named; EC2 knows them."""
        backend, params = self.ec2_backend, self.params
        volume = backend.get_volume(params["VolumeId"])
        attachment = volume.attachment
        if attachment is None:
            raise Refusal("IncorrectState", f"Volume '{volume.id}' is in the 'available' state.")
        instance, device = attachment.instance, attachment.device
        if params.get("InstanceId", instance.id) != instance.id or (
            params.get("Device", device) != device
        ):
            raise Refusal(
                "InvalidAttachment.NotFound",
                f"The volume '{volume.id}' is not attached to instance "
                f"'{params.get('InstanceId', instance.id)}' as device "
                f"'{params.get('Device', device)}'",
            )
        life = Desk.current.fleet.life(instance.id)
        machine = life.machine if life is not None else None
        if is_root(volume) and instance.state == "stopped":
            raise Refusal(
                "UnsupportedOperation", "the local endpoint can't take a machine's root disk away"
            )
        if is_root(volume):
            raise Refusal(
                "OperationNotPermitted",
                f"Unable to detach root volume '{device}' from instance '{instance.id}'",
            )
        self.error_on_dryrun()
        if machine is None:
            backend.detach_volume(volume.id, instance.id, device)
        elif attachment.status == "attached":
            attachment.status = "detaching"
            Desk.current.spawn(backend.release, volume, attachment, machine)
        return ActionResult(
            {
                "VolumeId": volume.id,
                "InstanceId": instance.id,
                "Device": device,
                "State": "detaching",
                "AttachTime": attachment.attach_time,
            }
        )
