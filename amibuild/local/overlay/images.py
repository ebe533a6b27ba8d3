"""Images: CreateImage reads the machine's disk into the store, and is pending until that is done.

Sources: EC2 API reference, CreateImage (Name: 3 to 128 letters, digits, spaces and ()[]./-'@_;
without NoReboot a running instance is shut down first and started after), DeregisterImage, and
"Error codes" for InvalidAMIName.Malformed and .Duplicate.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import Ami
from moto.ec2.models.instances import StateReason
from moto.ec2.responses import EC2Response
from moto.ec2.utils import random_ami_id, random_snapshot_id

from amibuild.errors import AmibuildError
from amibuild.local.life import Life, Wish
from amibuild.local.overlay import launching
from amibuild.local.overlay.desk import Desk, Refusal
from amibuild.local.overlay.snapshots import LocalSnapshot
from amibuild.local.store import ImageRecord

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")


class LocalAmi(Ami):
    """`record` is None until the store has it; moto's own constructor would make a volume."""

    __module__ = "moto.ec2.models.amis"

    def __init__(
        self,
        backend: Any,
        *,
        image_id: str,
        name: str,
        description: str,
        owner_id: str,
        created: datetime,
        snapshot: LocalSnapshot,
        architecture: str = "x86_64",
        boot_mode: str = "uefi",
        imds_support: str | None = None,
        root_device: str = "/dev/xvda",
        instance_id: str | None = None,
        record: ImageRecord | None = None,
    ) -> None:
        self.ec2_backend = backend
        self.id = image_id
        self.name = name
        self.description = description
        self.owner_id = owner_id
        self.owner_alias = None
        self.creation_date = created
        self.ebs_snapshot = snapshot
        self.architecture = architecture
        self.boot_mode = boot_mode
        self.imds_support = imds_support
        self.root_device_name = root_device
        self.root_device_type = "ebs"
        self.instance_id = instance_id
        self.record = record
        self.state = "available" if record is not None else "pending"
        self.state_reason: StateReason | None = None
        self.virtualization_type = "hvm"
        self.hypervisor = "xen"
        self.image_type = "machine"
        self.image_location = f"{owner_id}/{name}"
        self.platform = None
        self.platform_details = "Linux/UNIX"
        self.usage_operation = "RunInstances"
        self.kernel_id = None
        self.ena_support = True
        self.sriov = "simple"
        self.sriov_net_support = "simple"
        self.product_codes: set[str] = set()
        self.launch_permissions: list[dict[str, str]] = []
        if record is not None:
            if owner_id != backend.account_id:
                self.launch_permissions.append({"Group": "all"})
            self.launch_permissions += json.loads(record.facts.get("launch_permissions", "[]"))

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        return [
            {
                "DeviceName": self.root_device_name,
                "Ebs": {
                    "SnapshotId": self.ebs_snapshot.id,
                    "VolumeSize": self.ebs_snapshot.volume_size,
                    "DeleteOnTermination": True,
                    "VolumeType": "gp3",
                    "Encrypted": self.ebs_snapshot.encrypted,
                },
            }
        ]


class ImageBooks(EC2Backend):
    def load_image(self, record: ImageRecord) -> None:
        """Puts an image of the store into the books; its snapshot is there already."""
        assert record.snapshot_id is not None
        self.amis[record.id] = LocalAmi(
            self,
            image_id=record.id,
            name=record.name,
            description=record.description,
            owner_id=record.owner,
            created=record.created,
            snapshot=self.snapshots[record.snapshot_id],
            architecture=record.architecture,
            boot_mode=record.boot_mode,
            imds_support=record.imds_support,
            root_device=record.root_device,
            instance_id=record.source_instance,
            record=record,
        )
        self.tags[record.id].update(record.tags)

    def begin_image(
        self,
        instance: Any,
        *,
        name: str,
        description: str,
        reboot: bool,
        tags: dict[str, dict[str, str]],
    ) -> LocalAmi:
        """The new image, pending. A thread reads the disk as soon as the machine is off it."""
        life = Desk.current.fleet.life(instance.id)
        if instance.state not in {"running", "stopped"} or life is None:
            raise Refusal(
                "IncorrectInstanceState",
                f"Instance '{instance.id}' is not in state 'running' or 'stopped'",
            )
        if instance.state == "running" and not reboot:
            raise Refusal(
                "UnsupportedOperation",
                "the local endpoint can't read the disk of a running machine: stop it, or allow "
                "the reboot (NoReboot=false)",
            )
        image_id, snapshot_id = random_ami_id(), random_snapshot_id()
        root = instance.block_device_mapping[instance.root_device_name]
        snapshot = self.pending_snapshot(
            self.get_volume(root.volume_id),
            f"Created by CreateImage({instance.id}) for {image_id}",
            snapshot_id,
        )
        image = LocalAmi(
            self,
            image_id=image_id,
            name=name,
            description=description,
            owner_id=self.account_id,
            created=datetime.now(UTC),
            snapshot=snapshot,
            architecture=instance.architecture,
            boot_mode=instance.boot_mode,
            root_device=instance.root_device_name,
            instance_id=instance.id,
        )
        self.amis[image_id] = image
        image.add_tags(tags.get("image", {}))
        snapshot.add_tags(tags.get("snapshot", {}))
        if instance.state == "running":
            life.wish(Wish.REBOOT, between=lambda: self._capture(image, life))
        else:
            # Begun here, so that nothing can start the machine before the disk is held.
            reading = life.reading_disk()
            still = reading.__enter__()
            Desk.current.spawn(self._capture_held, image, reading, still)
        return image

    def _capture(self, image: LocalAmi, life: Life) -> None:
        reading = life.reading_disk()
        self._capture_held(image, reading, reading.__enter__())

    def _capture_held(self, image: LocalAmi, reading: Any, still: Any) -> None:
        desk, snapshot = Desk.current, image.ebs_snapshot
        try:
            desk.before_capture()
            desk.go_on()
            desk.trim(still)  # or a deleted file would be in the snapshot
            record = desk.store.capture(
                still,
                snapshot.id,
                volume_size_gib=snapshot.volume_size,
                description=snapshot.description,
                tags=self._tags_of(snapshot.id),
                owner=self.account_id,
                progress=snapshot.advance,
            )
            with desk.lock:
                self._complete(image, record)
        except (AmibuildError, OSError) as error:
            log.warning("%s: %s", image.id, error)
            with desk.lock:
                image.state = "failed"
                image.state_reason = StateReason(str(error), "Server.InternalError")
                snapshot.status, snapshot.status_message = "error", str(error)
        finally:
            reading.__exit__(None, None, None)

    def _complete(self, image: LocalAmi, captured: Any) -> None:
        """Writes snapshot and image, with the tags that they have by now."""
        store, snapshot = Desk.current.store, image.ebs_snapshot
        snapshot.record = captured.model_copy(update={"tags": self._tags_of(snapshot.id)})
        if snapshot.record != captured:
            store.put_snapshot(snapshot.record)
        snapshot.status = "completed"
        if self.amis.get(image.id) is not image:
            return  # deregistered meanwhile: the snapshot stays, as on EC2
        image.record = ImageRecord(
            id=image.id,
            name=image.name,
            description=image.description,
            owner=image.owner_id,
            created=image.creation_date,
            architecture=image.architecture,
            boot_mode=image.boot_mode,
            imds_support=image.imds_support,
            root_device=image.root_device_name,
            snapshot_id=snapshot.id,
            volume_size_gib=snapshot.volume_size,
            tags=self._tags_of(image.id),
            source_instance=image.instance_id,
            facts={"region": self.region_name, **_shared(image)},
        )
        store.put_image(image.record)
        image.state = "available"

    def deregister_image(self, ami_id: str) -> None:
        launching.check_image_id(ami_id)
        image = self.amis.get(ami_id)
        if image is not None and image.owner_id != self.account_id:
            raise Refusal("AuthFailure", f"Not authorized for image: {ami_id}")
        super().deregister_image(ami_id)
        self.tags.pop(ami_id, None)
        if image is not None and image.record is not None:
            Desk.current.store.delete_image(ami_id)

    def modify_image_attribute(self, ami_id: str, *args: Any, **kwargs: Any) -> None:
        super().modify_image_attribute(ami_id, *args, **kwargs)
        image = self.amis.get(ami_id)
        if image is not None and image.record is not None:
            facts = {**image.record.facts, **_shared(image)}
            image.record = image.record.model_copy(update={"facts": facts})
            Desk.current.store.put_image(image.record)

    def register_image(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("images are made by CreateImage here")

    def copy_image(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("images stay in their region here")


def _shared(image: LocalAmi) -> dict[str, str]:
    return {"launch_permissions": json.dumps(image.launch_permissions)}


class ImageResponses(EC2Response):
    def create_image(self) -> ActionResult:
        backend, name = self.ec2_backend, self.params["Name"]
        if not _NAME.fullmatch(name):
            raise Refusal(
                "InvalidAMIName.Malformed",
                "AMI names must be between 3 and 128 characters long, and may contain letters, "
                "numbers, '(', ')', '.', '-', '/' and '_'",
            )
        for image in backend.amis.values():
            if image.name == name and image.owner_id == backend.account_id:
                raise Refusal(
                    "InvalidAMIName.Duplicate",
                    f"AMI name {name} is already in use by AMI {image.id}",
                )
        launching.check_instance_ids([self.params["InstanceId"]])
        instance = backend.get_instance(self.params["InstanceId"])
        tags = self._parse_tag_specification()
        unknown = set(tags) - {"image", "snapshot"}
        if unknown:
            raise Refusal(
                "InvalidParameterValue",
                f"'{unknown.pop()}' is not a valid taggable resource type for this operation.",
            )
        self.error_on_dryrun()
        image = backend.begin_image(
            instance,
            name=name,
            description=self.params.get("Description", ""),
            reboot=not self.params.get("NoReboot", False),
            tags=tags,
        )
        return ActionResult({"ImageId": image.id})

    def describe_images(self) -> ActionResult:
        for id_ in self.params.get("ImageIds", []):
            launching.check_image_id(id_)
        result: ActionResult = super().describe_images()
        return result

    def deregister_image(self) -> ActionResult:
        backend, id_ = self.ec2_backend, self.params["ImageId"]
        self.error_on_dryrun()
        image = backend.amis.get(id_)
        backend.deregister_image(id_)
        results = []
        if image is not None and self.params.get("DeleteAssociatedSnapshots", False):
            snapshot_id = image.ebs_snapshot.id
            backend.delete_snapshot(snapshot_id)
            results.append({"SnapshotId": snapshot_id, "ReturnCode": "success"})
        return ActionResult({"Return": True, "DeleteSnapshotResults": results})
