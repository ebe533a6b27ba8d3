"""RegisterImage: an image from snapshots that are there.

Sources: EC2 API reference, RegisterImage (defaults: i386 and paravirtual; a snapshot's encryption
can't be set), EbsBlockDevice; Error codes, InvalidBlockDeviceMapping.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response
from moto.ec2.utils import random_ami_id

from amibuild.local.overlay.ami import Device, LocalAmi
from amibuild.local.overlay.asked import check_choice, check_new_name, refuse_parameters
from amibuild.local.overlay.desk import Refusal
from amibuild.local.overlay.snapshots import check_completed, known_snapshot

_NO_PLACE_HERE = ("ImageLocation", "BillingProducts", "KernelId", "RamdiskId", "UefiData")


def asked_device(backend: Any, mapping: dict[str, Any]) -> Device:
    """A device that no volume is behind yet. Raises: Refusal."""
    name, ebs = mapping.get("DeviceName"), mapping.get("Ebs")
    if not name:
        raise _wrong("A device name is needed in each block device mapping.")
    if ebs is None:
        raise Refusal("UnsupportedOperation", "the local endpoint has no instance store")
    refuse_parameters(ebs, "OutpostArn", "AvailabilityZone", "AvailabilityZoneId", "KmsKeyId")
    if "SnapshotId" not in ebs:
        if "VolumeSize" not in ebs:
            raise _wrong(f"Either snapshot ID or volume size must be provided for: {name}")
        refuse_parameters(ebs, "Encrypted")
        return _device(name, None, ebs["VolumeSize"], ebs)
    snapshot = known_snapshot(backend, ebs["SnapshotId"])
    check_completed(snapshot)
    if "Encrypted" in ebs:
        raise _wrong(
            f"the encrypted flag cannot be specified since device {name} has a snapshot specified."
        )
    size = ebs.get("VolumeSize", snapshot.volume_size)
    if size < snapshot.volume_size:
        raise _wrong(
            f"Volume of size {size}GB is smaller than snapshot '{snapshot.id}', expect size >= "
            f"{snapshot.volume_size}GB"
        )
    return _device(name, snapshot, size, ebs)


def _device(name: str, snapshot: Any, size: int, ebs: dict[str, Any]) -> Device:
    return Device(
        name,
        snapshot,
        size,
        ebs.get("VolumeType", "gp2"),
        ebs.get("DeleteOnTermination", True),
        ebs.get("Iops"),
        ebs.get("Throughput"),
    )


def _wrong(message: str) -> Refusal:
    return Refusal("InvalidBlockDeviceMapping", message)


def _devices(backend: Any, root: str, mappings: list[dict[str, Any]]) -> list[Device]:
    """The root device first."""
    devices = [asked_device(backend, m) for m in mappings if "NoDevice" not in m]
    names = [device.name for device in devices]
    for name in names:
        if names.count(name) > 1:
            raise _wrong(f"The device '{name}' is used in more than one block-device mapping")
    first = [device for device in devices if device.name == root and device.snapshot]
    if not first:
        raise _wrong(f"No snapshot is given for the root device {root}")
    return first + [device for device in devices if device.name != root]


class RegisterResponses(EC2Response):
    params: dict[str, Any]

    def register_image(self) -> ActionResult:
        backend, params = self.ec2_backend, self.params
        check_new_name(backend, params["Name"])
        refuse_parameters(params, *_NO_PLACE_HERE)
        _check_choices(params)
        tags = self._parse_tag_specification()
        root = params.get("RootDeviceName")
        for key, value in (
            ("BlockDeviceMappings", params.get("BlockDeviceMappings")),
            ("RootDeviceName", root),
        ):
            if not value:
                raise Refusal("MissingParameter", f"The request must contain the parameter {key}")
        devices = _devices(backend, str(root), params["BlockDeviceMappings"])
        self.error_on_dryrun()
        image = LocalAmi(
            backend,
            image_id=random_ami_id(),
            name=params["Name"],
            description=params.get("Description", ""),
            owner_id=backend.account_id,
            created=datetime.now(UTC),
            devices=devices,
            architecture=params.get("Architecture", "i386"),
            boot_mode=params.get("BootMode"),
            ena=params.get("EnaSupport", False),
            imds_support=params.get("ImdsSupport"),
            sriov=params.get("SriovNetSupport"),
            tpm=params.get("TpmSupport"),
            virtualization=params.get("VirtualizationType", "paravirtual"),
        )
        backend.amis[image.id] = image
        image.add_tags(tags.get("image", {}))
        backend.complete_image(image)
        return ActionResult({"ImageId": image.id})


def _check_choices(params: dict[str, Any]) -> None:
    """Source: botocore's service model, the enumerations of RegisterImage."""
    for parameter, choices in (
        ("Architecture", ("i386", "x86_64", "arm64", "x86_64_mac", "arm64_mac")),
        ("BootMode", ("legacy-bios", "uefi", "uefi-preferred")),
        ("ImdsSupport", ("v2.0",)),
        ("TpmSupport", ("v2.0",)),
        ("SriovNetSupport", ("simple",)),
        ("VirtualizationType", ("hvm", "paravirtual")),
    ):
        check_choice(params.get(parameter), parameter, *choices)
