"""Images: CreateImage reads the machine's disks into the store, and is pending until that is done.

Sources: EC2 API reference, CreateImage (without NoReboot a running instance is shut down first and
started after; of a volume's mapping only DeleteOnTermination can be changed), and "Error codes".
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models import EC2Backend
from moto.ec2.models.instances import StateReason
from moto.ec2.responses import EC2Response
from moto.ec2.utils import random_ami_id, random_snapshot_id

from amibuild.errors import AmibuildError
from amibuild.local.life import Life, Wish
from amibuild.local.overlay import launching
from amibuild.local.overlay.ami import Device, LocalAmi, may_use
from amibuild.local.overlay.asked import check_choice, check_new_name, refuse_parameters
from amibuild.local.overlay.desk import Desk, Refusal
from amibuild.local.overlay.registering import asked_device
from amibuild.local.overlay.snapshots import others
from amibuild.local.overlay.stilldisk import disk_of, still_disk
from amibuild.local.store import ImageRecord

log = logging.getLogger(__name__)

# All that a mapping may change about a volume that is there.
_CHANGEABLE = "DeleteOnTermination"


class ImageBooks(EC2Backend):
    def load_image(self, record: ImageRecord) -> None:
        """Puts an image of the store into the books, if this account may see it.

        Its snapshots are there already, or it is left out.
        """
        lost = sorted(record.snapshot_ids - set(self.snapshots))
        if lost:
            log.warning("%s is left out: its snapshot %s is lost", record.id, lost[0])
        elif record.snapshot_id is not None and may_use(record, self.account_id):
            self.amis[record.id] = LocalAmi.of(self, record)
            self.tags[record.id].clear()
            self.tags[record.id].update(record.tags)

    def keep_image(self, image: LocalAmi) -> None:
        """Writes what can change about it. A pending one is written once it is available."""
        if image.kept:
            record = image.record(self._tags_of(image.id))
            Desk.current.store.put_image(record)
            self._tell_others(record)

    def _tell_others(self, record: ImageRecord) -> None:
        """Whom it is shared with sees it as it is now, or no longer."""
        for other in others(self):
            other.amis.pop(record.id, None)
            for snapshot_id in record.snapshot_ids - set(other.snapshots):
                snapshot = self.snapshots[snapshot_id].record
                if snapshot is not None:
                    other.load_snapshot(snapshot)
            other.load_image(record)

    def forget_elsewhere(self, image_id: str) -> None:
        for other in others(self):
            if other.amis.pop(image_id, None) is not None:
                other.deleted_amis.append(image_id)

    def run_instances(self, image_id: str, *args: Any, **kwargs: Any) -> Any:
        reservation = super().run_instances(image_id, *args, **kwargs)
        image = self.amis.get(image_id)
        if image is not None and image.owner_id == self.account_id:
            image.last_launched = datetime.now(UTC)
            self.keep_image(image)
        return reservation

    def begin_image(
        self,
        instance: Any,
        *,
        name: str,
        description: str,
        reboot: bool,
        tags: dict[str, dict[str, str]],
        mappings: list[dict[str, Any]],
        dry_run: Any,
    ) -> LocalAmi:
        """The new image, pending. A thread reads the disks as soon as the machine is off them."""
        life = Desk.current.fleet.life(instance.id)
        if instance.state not in {"running", "stopped"} or life is None:
            raise Refusal(
                "IncorrectInstanceState",
                f"Instance '{instance.id}' is not in state 'running' or 'stopped'",
            )
        volumes = self._devices_of(instance)
        devices = _remapped(self, volumes, instance.root_device_name, mappings)
        with ExitStack() as stack:
            stills: dict[str, Path] = {}
            if instance.state == "stopped":
                # Begun here, so that nothing can start the machine before the disks are held.
                self._hold(stack, volumes, devices, stills)
            dry_run()
            image_id = random_ami_id()
            for device in devices:
                if device.name in volumes and device.snapshot is None:
                    device.snapshot = self.pending_snapshot(
                        volumes[device.name],
                        f"Created by CreateImage({instance.id}) for {image_id}",
                        random_snapshot_id(),
                    )
                    device.snapshot.add_tags(tags.get("snapshot", {}))
            image = LocalAmi(
                self,
                image_id=image_id,
                name=name,
                description=description,
                owner_id=self.account_id,
                created=datetime.now(UTC),
                devices=devices,
                architecture=instance.architecture,
                boot_mode=instance.boot_mode,
                instance_id=instance.id,
                source_image=instance.image_id,
                source_region=self.region_name,
            )
            self.amis[image_id] = image
            image.add_tags(tags.get("image", {}))
            if instance.state == "running" and not reboot:
                Desk.current.spawn(self._capture_running, image, volumes, life)
            elif instance.state == "running":
                life.wish(Wish.REBOOT, between=lambda: self._capture(image, volumes))
            else:
                held = stack.pop_all()
                Desk.current.spawn(self._capture_held, image, stills, held)
        return image

    def _devices_of(self, instance: Any) -> dict[str, Any]:
        """Device name -> volume, the root device first."""
        found = {
            name: self.get_volume(block.volume_id)
            for name, block in instance.block_device_mapping.items()
        }
        root = instance.root_device_name
        return {root: found.pop(root), **found}

    def _hold(
        self,
        stack: ExitStack,
        volumes: dict[str, Any],
        devices: list[Device],
        into: dict[str, Path],
    ) -> None:
        """Every volume's disk, of a machine that is off."""
        for device in devices:
            if device.name in volumes:
                still = still_disk(volumes[device.name])
                into[device.name] = stack.enter_context(still)

    def _capture_running(self, image: LocalAmi, volumes: dict[str, Any], life: Life) -> None:
        """NoReboot: all its disks at one moment, as after a power cut."""
        names = [device.name for device in image.devices if device.name in volumes]
        try:
            with life.copying_disks([disk_of(volumes[name]) for name in names]) as copies:
                stills = dict(zip(names, copies, strict=True))
                self._capture_held(image, stills, nullcontext())
        except (AmibuildError, OSError) as error:
            self._fail(image, str(error))

    def _capture(self, image: LocalAmi, volumes: dict[str, Any]) -> None:
        """Called while the machine is off between two boots."""
        stills: dict[str, Path] = {}
        with ExitStack() as stack:
            try:
                self._hold(stack, volumes, image.devices, stills)
            except Refusal as error:
                self._fail(image, str(error))
            else:
                # Not here: a machine that is to go must not wait for its image.
                Desk.current.spawn(self._capture_held, image, stills, stack.pop_all())

    def _capture_held(
        self, image: LocalAmi, stills: dict[str, Path], held: AbstractContextManager[Any]
    ) -> None:
        desk = Desk.current
        with held:
            try:
                desk.before_capture()
                desk.go_on()
                desk.trim(stills[image.root_device_name])  # or a deleted file would be in it
                for device in image.devices:
                    if device.name in stills and device.snapshot is not None:
                        record = self.capture_snapshot(device.snapshot, stills[device.name])
                        with desk.lock:
                            self.complete_snapshot(device.snapshot, record)
                with desk.lock:
                    self.complete_image(image)
            except (AmibuildError, OSError) as error:
                self._fail(image, str(error), getattr(error, "image_state", "failed"))

    def complete_image(self, image: LocalAmi) -> None:
        """Writes an image whose snapshots are complete, with the tags that it has by now."""
        if self.amis.get(image.id) is not image:
            return  # deregistered meanwhile: the snapshots stay, as on EC2
        image.state, image.kept = "available", True
        self.keep_image(image)

    def _fail(self, image: LocalAmi, reason: str, state: str = "failed") -> None:
        log.warning("%s: %s", image.id, reason)
        with Desk.current.lock:
            self.fail_image(image, reason, state)

    def fail_image(self, image: LocalAmi, reason: str, state: str = "failed") -> None:
        image.state = state
        image.state_reason = StateReason(reason, "Server.InternalError")
        for snapshot in image.snapshots:
            if snapshot.status == "pending":
                snapshot.fail(reason)


def _remapped(
    backend: Any, volumes: dict[str, Any], root: str, mappings: list[dict[str, Any]]
) -> list[Device]:
    """The image's devices: the instance's volumes as the request changes them, and its new ones.

    A new one is empty or has its snapshot; the others get theirs later.
    """
    devices = {
        name: Device(
            name,
            None,
            volume.size,
            volume.volume_type or "gp2",
            _goes_with_instance(volume),
            volume.iops,
            getattr(volume, "throughput", None),
        )
        for name, volume in volumes.items()
    }
    for mapping in mappings:
        name = mapping.get("DeviceName", "")
        if name not in volumes:
            if "NoDevice" not in mapping:
                devices[name] = asked_device(backend, mapping)
        elif "NoDevice" in mapping:
            if name == root:
                raise Refusal("InvalidBlockDeviceMapping", f"The root device {root} is needed.")
            devices.pop(name, None)
        else:
            devices[name] = _changed(devices[name], volumes[name], mapping.get("Ebs", {}))
    return list(devices.values())


def _changed(device: Device, volume: Any, ebs: dict[str, Any]) -> Device:
    """Source: CreateImage, BlockDeviceMappings: what can't be changed there."""
    now = {
        "VolumeSize": device.size_gib,
        "VolumeType": device.volume_type,
        "Iops": device.iops,
        "Throughput": device.throughput,
        "Encrypted": bool(volume.encrypted),
    }
    for key, value in ebs.items():
        if key != _CHANGEABLE and now.get(key) != value:
            raise Refusal(
                "InvalidBlockDeviceMapping",
                f"{key} of {device.name} can't be changed by CreateImage, only {_CHANGEABLE} can",
            )
    return replace(device, delete_on_termination=ebs.get(_CHANGEABLE, device.delete_on_termination))


def _goes_with_instance(volume: Any) -> bool:
    attached = volume.attachment
    block = attached.instance.block_device_mapping[attached.device]
    return bool(block.delete_on_termination)


class ImageResponses(EC2Response):
    params: dict[str, Any]

    def create_image(self) -> ActionResult:
        backend, params = self.ec2_backend, self.params
        check_new_name(backend, params["Name"])
        check_choice(params.get("BootModeOverride"), "BootModeOverride", "uefi")
        refuse_parameters(params, "SnapshotLocation")
        launching.check_instance_ids([params["InstanceId"]])
        instance = backend.get_instance(params["InstanceId"])
        image = backend.begin_image(
            instance,
            name=params["Name"],
            description=params.get("Description", ""),
            reboot=not params.get("NoReboot", False),
            tags=self._parse_tag_specification(),
            mappings=params.get("BlockDeviceMappings", []),
            dry_run=self.error_on_dryrun,
        )
        return ActionResult({"ImageId": image.id})
