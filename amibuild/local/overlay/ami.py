"""An image as the books have it, and as the store does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.ec2.models.amis import Ami
from moto.ec2.models.instances import StateReason

from amibuild.local.overlay.desk import ACCOUNT, Refusal
from amibuild.local.overlay.launching import check_image_id
from amibuild.local.overlay.snapshots import LocalSnapshot
from amibuild.local.records import DeviceRecord, ImageRecord, Permission


@dataclass
class Device:
    """One entry of the block device mapping. Without a snapshot its volume begins empty."""

    name: str
    snapshot: LocalSnapshot | None
    size_gib: int
    volume_type: str = "gp3"
    delete_on_termination: bool = True
    iops: int | None = None
    throughput: int | None = None

    def described(self) -> dict[str, Any]:
        ebs: dict[str, Any] = {
            "VolumeSize": self.size_gib,
            "VolumeType": self.volume_type,
            "DeleteOnTermination": self.delete_on_termination,
            "Encrypted": self.snapshot is not None and self.snapshot.encrypted,
        }
        if self.snapshot is not None:
            ebs["SnapshotId"] = self.snapshot.id
        if self.iops is not None:
            ebs["Iops"] = self.iops
        if self.throughput is not None:
            ebs["Throughput"] = self.throughput
        return {"DeviceName": self.name, "Ebs": ebs}

    def launched(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What a launch makes of it. What comes of an encrypted snapshot is encrypted, too."""
        ebs = {**self.described()["Ebs"], **asked}
        if ebs["VolumeType"] != self.volume_type:
            for key in {"Iops", "Throughput"} - set(asked):
                ebs.pop(key, None)  # those of another type
        if self.snapshot is not None and self.snapshot.encrypted:
            ebs |= {"Encrypted": True, "KmsKeyId": asked.get("KmsKeyId", self.snapshot.kms_key_id)}
        return ebs

    def record(self) -> DeviceRecord:
        return DeviceRecord(
            name=self.name,
            snapshot_id=self.snapshot.id if self.snapshot is not None else None,
            size_gib=self.size_gib,
            volume_type=self.volume_type,
            delete_on_termination=self.delete_on_termination,
            iops=self.iops,
            throughput=self.throughput,
        )


class LocalAmi(Ami):
    """`devices` begin with the root device. `kept` once the store has it.

    moto's own constructor would make a volume.
    """

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
        devices: list[Device],
        state: str = "pending",
        architecture: str = "x86_64",
        boot_mode: str | None = "uefi",
        ena: bool = True,
        imds_support: str | None = None,
        sriov: str | None = "simple",
        tpm: str | None = None,
        virtualization: str = "hvm",
        instance_id: str | None = None,
        source_image: str | None = None,
        source_region: str | None = None,
    ) -> None:
        self.ec2_backend = backend
        self.id = image_id
        self.name = name
        self.description = description
        self.owner_id = owner_id
        self.owner_alias = None
        self.creation_date = created
        self.devices = devices
        self.state = state
        self.architecture = architecture
        self.boot_mode = boot_mode
        self.ena_support = ena
        self.imds_support = imds_support
        self.sriov_net_support = sriov
        self.tpm_support = tpm
        self.virtualization_type = virtualization
        self.instance_id = instance_id
        self.source_image_id = source_image
        self.source_image_region = source_region
        self.kept = False
        self.facts: dict[str, str] = {"region": backend.region_name}
        self.state_reason: StateReason | None = None
        self.permissions: list[Permission] = []
        self.deprecation: datetime | None = None
        self.protection: Any = "disabled"
        self.protected_until: datetime | None = None
        self.last_launched: datetime | None = None
        self.token: str | None = None
        self.asked = ""
        # The same for all images here.
        self.root_device_name = devices[0].name
        self.root_device_type = "ebs"
        self.image_location = f"{owner_id}/{name}"
        self.hypervisor = "xen"
        self.image_type = "machine"
        self.platform = None
        self.platform_details = "Linux/UNIX"
        self.usage_operation = "RunInstances"
        self.kernel_id = None
        self.product_codes: set[str] = set()

    @classmethod
    def of(cls, backend: Any, record: ImageRecord) -> LocalAmi:
        """The image of a record whose snapshots are in the backend's books."""
        root = DeviceRecord(
            name=record.root_device,
            snapshot_id=record.snapshot_id,
            size_gib=record.volume_size_gib,
        )
        image = cls(
            backend,
            image_id=record.id,
            name=record.name,
            description=record.description,
            owner_id=record.owner,
            created=record.created,
            devices=[
                Device(
                    d.name,
                    backend.snapshots[d.snapshot_id] if d.snapshot_id else None,
                    d.size_gib,
                    d.volume_type,
                    d.delete_on_termination,
                    d.iops,
                    d.throughput,
                )
                for d in record.devices or (root,)
            ],
            state=record.state,
            architecture=record.architecture,
            boot_mode=record.boot_mode,
            ena=record.ena,
            imds_support=record.imds_support,
            sriov=record.sriov,
            tpm=record.tpm,
            virtualization=record.virtualization,
            instance_id=record.source_instance,
            source_image=record.source_image,
            source_region=record.source_region,
        )
        image.kept = True
        image.facts = dict(record.facts)
        image.permissions = list(permissions_of(record))
        image.deprecation = record.deprecation
        image.protection = record.protection
        image.protected_until = record.protected_until
        image.last_launched = record.last_launched
        image.token, image.asked = record.token, record.asked
        return image

    def record(self, tags: dict[str, str]) -> ImageRecord:
        return ImageRecord(
            id=self.id,
            name=self.name,
            description=self.description,
            owner=self.owner_id,
            created=self.creation_date,
            architecture=self.architecture,
            boot_mode=self.boot_mode,
            ena=self.ena_support,
            imds_support=self.imds_support,
            sriov=self.sriov_net_support,
            tpm=self.tpm_support,
            virtualization=self.virtualization_type,
            root_device=self.root_device_name,
            snapshot_id=self.ebs_snapshot.id,
            volume_size_gib=self.devices[0].size_gib,
            tags=tags,
            source_instance=self.instance_id,
            facts=self.facts,
            state="disabled" if self.state == "disabled" else "available",
            devices=tuple(device.record() for device in self.devices),
            permissions=tuple(self.permissions),
            source_image=self.source_image_id,
            source_region=self.source_image_region,
            deprecation=self.deprecation,
            protection=self.protection,
            protected_until=self.protected_until,
            last_launched=self.last_launched,
            token=self.token,
            asked=self.asked,
        )

    @property
    def ebs_snapshot(self) -> LocalSnapshot:
        snapshot = self.devices[0].snapshot
        assert snapshot is not None
        return snapshot

    @property
    def snapshots(self) -> list[LocalSnapshot]:
        return [d.snapshot for d in self.devices if d.snapshot is not None]

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        return [device.described() for device in self.devices]

    @property
    def is_public(self) -> bool:
        return any(p.group == "all" for p in self.permissions)

    @property
    def is_deprecated(self) -> bool:
        return self.deprecation is not None and self.deprecation <= datetime.now(UTC)


def permissions_of(record: ImageRecord) -> tuple[Permission, ...]:
    """In a record of format 1 they are among the facts; another's image there is public."""
    if record.permissions is not None:
        return record.permissions
    said = json.loads(record.facts.get("launch_permissions", "[]"))
    found = [Permission(user=p.get("UserId"), group=p.get("Group")) for p in said]
    if record.owner != ACCOUNT:
        found.append(Permission(group="all"))
    return tuple(found)


def may_use(record: ImageRecord, account: str) -> bool:
    """Whether it is there for this account: its own, public, or shared with it."""
    if record.owner == account:
        return True
    granted = permissions_of(record)
    return any(p.group == "all" or p.user == account for p in granted)


def own_image(backend: Any, image_id: str) -> LocalAmi:
    """The image, which must be the caller's.

    Source: Error codes: InvalidAMIID.Unavailable for one that has been deregistered, AuthFailure
    for another account's.
    """
    image = known_image(backend, image_id)
    if image.owner_id != backend.account_id:
        raise Refusal("AuthFailure", f"Not authorized for image: {image_id}")
    return image


def known_image(backend: Any, image_id: str) -> LocalAmi:
    check_image_id(image_id)
    image: LocalAmi | None = backend.amis.get(image_id)
    if image is not None:
        return image
    if image_id in backend.deleted_amis:
        raise Refusal("InvalidAMIID.Unavailable", f"The image ID '{image_id}' is not available")
    raise Refusal("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")


def check_usable(image: LocalAmi) -> None:
    """Source: ModifyImageAttribute on a pending image, as SUSE's ec2imgutils saw it (issue 45)."""
    if image.state != "available":
        raise Refusal(
            "InvalidAMIID.Unavailable",
            f"The AMI ID '{image.id}' is currently {image.state} and may not be used for this "
            "operation",
        )
