"""DescribeImages and DescribeSnapshots.

Sources: EC2 API reference, of both; User Guide, "Deprecate an AMI" (others don't see a deprecated
one unless they name it or ask for it) and "Disable an AMI" (only its owner sees it, and by its id
or with IncludeDisabled).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response

from amibuild.local.overlay.ami import LocalAmi
from amibuild.local.overlay.asked import check_owners
from amibuild.local.overlay.desk import Refusal
from amibuild.local.overlay.finding import filtered
from amibuild.local.overlay.launching import check_image_id
from amibuild.local.overlay.paging import sorted_page
from amibuild.local.overlay.snapshots import (
    LocalSnapshot,
    check_snapshot_id,
    described_snapshot,
    tag_list,
)

# CreationDate and its like: milliseconds, which are always 000 here as they mostly are there.
_TIME = "%Y-%m-%dT%H:%M:%S.000Z"


def iso_time(moment: datetime | None) -> str | None:
    return moment.strftime(_TIME) if moment is not None else None


_IMAGE_FILTERS = {
    "architecture": lambda i: i.architecture,
    "block-device-mapping.delete-on-termination": lambda i: [
        d.delete_on_termination for d in i.devices
    ],
    "block-device-mapping.device-name": lambda i: [d.name for d in i.devices],
    "block-device-mapping.encrypted": lambda i: [
        d.snapshot is not None and d.snapshot.encrypted for d in i.devices
    ],
    "block-device-mapping.snapshot-id": lambda i: [s.id for s in i.snapshots],
    "block-device-mapping.volume-size": lambda i: [d.size_gib for d in i.devices],
    "block-device-mapping.volume-type": lambda i: [d.volume_type for d in i.devices],
    "boot-mode": lambda i: i.boot_mode,
    "creation-date": lambda i: iso_time(i.creation_date),
    "description": lambda i: i.description,
    "ena-support": lambda i: i.ena_support,
    "hypervisor": lambda i: i.hypervisor,
    "image-id": lambda i: i.id,
    "image-type": lambda i: i.image_type,
    "is-public": lambda i: i.is_public,
    "kernel-id": lambda i: i.kernel_id,
    "manifest-location": lambda i: i.image_location,
    "name": lambda i: i.name,
    "owner-alias": lambda i: i.owner_alias,
    "owner-id": lambda i: i.owner_id,
    "platform": lambda i: i.platform,
    "product-code": lambda i: sorted(i.product_codes),
    "product-code.type": lambda i: None,
    "ramdisk-id": lambda i: None,
    "root-device-name": lambda i: i.root_device_name,
    "root-device-type": lambda i: i.root_device_type,
    "source-image-id": lambda i: i.source_image_id,
    "source-image-region": lambda i: i.source_image_region,
    "source-instance-id": lambda i: i.instance_id,
    "sriov-net-support": lambda i: i.sriov_net_support,
    "state": lambda i: i.state,
    "state-reason-code": lambda i: i.state_reason and i.state_reason.code,
    "state-reason-message": lambda i: i.state_reason and i.state_reason.message,
    "virtualization-type": lambda i: i.virtualization_type,
}
_SNAPSHOT_FILTERS = {
    "description": lambda s: s.description,
    "encrypted": lambda s: s.encrypted,
    "owner-alias": lambda s: None,
    "owner-id": lambda s: s.owner_id,
    "progress": lambda s: s.progress,
    "snapshot-id": lambda s: s.id,
    "start-time": lambda s: iso_time(s.start_time),
    "status": lambda s: s.status,
    "storage-tier": lambda s: "standard",
    "transfer-type": lambda s: "standard" if s.is_copy else None,
    "volume-id": lambda s: s.volume_id,
    "volume-size": lambda s: s.volume_size,
}


def _visible_images(backend: Any, params: dict[str, Any]) -> list[LocalAmi]:
    """What the request is about, before its filters. Raises: Refusal."""
    ids = params.get("ImageIds", [])
    for id_ in ids:
        check_image_id(id_)
    account = backend.account_id
    if ids:
        return [image for id_ in ids if (image := _named(backend, id_)) is not None]
    return [
        image
        for image in backend.amis.values()
        if (image.state != "disabled" or params.get("IncludeDisabled"))
        and (
            image.owner_id == account or not image.is_deprecated or params.get("IncludeDeprecated")
        )
    ]


def _named(backend: Any, id_: str) -> LocalAmi | None:
    """A deregistered image is no error, but nothing; "eventually" on EC2, after a restart here."""
    image: LocalAmi | None = backend.amis.get(id_)
    if image is None and id_ not in backend.deleted_amis:
        raise Refusal("InvalidAMIID.NotFound", f"The image id '[{id_}]' does not exist")
    return image


def _launchable_by(image: LocalAmi, users: set[str]) -> bool:
    """Explicit permission, which an owner does not have; `all` stands for public."""
    granted = {p.user for p in image.permissions} | {p.group for p in image.permissions}
    return not users.isdisjoint(granted)


def _accounts(backend: Any, named: list[str]) -> set[str]:
    return {backend.account_id if name == "self" else name for name in named}


def described_image(backend: Any, image: LocalAmi) -> dict[str, Any]:
    own = image.owner_id == backend.account_id
    reason = image.state_reason
    answer = {
        "ImageId": image.id,
        "Name": image.name,
        "Description": image.description,
        "ImageLocation": image.image_location,
        "State": image.state,
        "StateReason": reason and {"Code": reason.code, "Message": reason.message},
        "OwnerId": image.owner_id,
        "ImageOwnerAlias": image.owner_alias,
        "Public": image.is_public,
        "CreationDate": image.creation_date,
        "Architecture": image.architecture,
        "ImageType": image.image_type,
        "PlatformDetails": image.platform_details,
        "UsageOperation": image.usage_operation,
        "Hypervisor": image.hypervisor,
        "VirtualizationType": image.virtualization_type,
        "BootMode": image.boot_mode,
        "TpmSupport": image.tpm_support,
        "ImdsSupport": image.imds_support,
        "EnaSupport": image.ena_support,
        "SriovNetSupport": image.sriov_net_support,
        "RootDeviceName": image.root_device_name,
        "RootDeviceType": image.root_device_type,
        "BlockDeviceMappings": image.block_device_mappings,
        "SourceInstanceId": image.instance_id if own else None,
        "SourceImageId": image.source_image_id,
        "SourceImageRegion": image.source_image_region,
        "DeprecationTime": iso_time(image.deprecation),
        "DeregistrationProtection": image.protection if own else None,
        "LastLaunchedTime": iso_time(image.last_launched) if own else None,
        "ProductCodes": [],
        "Tags": tag_list(backend, image.id) if own else [],
    }
    return {key: value for key, value in answer.items() if value is not None}


class DescribeResponses(EC2Response):
    params: dict[str, Any]

    def describe_images(self) -> ActionResult:
        backend, params = self.ec2_backend, self.params
        owners, users = params.get("Owners", []), params.get("ExecutableUsers", [])
        check_owners(owners)
        check_owners(users, "all")
        self.error_on_dryrun()
        found = _visible_images(backend, params)
        if owners:
            named = _accounts(backend, owners)
            found = [i for i in found if i.owner_id in named or i.owner_alias in named]
        if users:
            accounts = _accounts(backend, users)
            found = [i for i in found if _launchable_by(i, accounts)]
        found = filtered(
            found, params.get("Filters", []), _IMAGE_FILTERS, lambda i: _own_tags(backend, i)
        )
        shown, token = sorted_page(found, params, lambda i: i.id)
        images = [described_image(backend, image) for image in shown]
        return ActionResult({"Images": images, **({"NextToken": token} if token else {})})

    def describe_snapshots(self) -> ActionResult:
        backend, params = self.ec2_backend, self.params
        owners, users = params.get("OwnerIds", []), params.get("RestorableByUserIds", [])
        check_owners(owners)
        check_owners(users, "all")
        ids = params.get("SnapshotIds", [])
        for id_ in ids:
            check_snapshot_id(id_)
            if id_ not in backend.snapshots:
                raise Refusal("InvalidSnapshot.NotFound", f"The snapshot '{id_}' does not exist.")
        self.error_on_dryrun()
        found: list[LocalSnapshot] = [
            s
            for s in backend.snapshots.values()
            if (not ids or s.id in ids) and s.may_be_used_by(backend.account_id)
        ]
        if owners:
            found = [s for s in found if s.owner_id in _accounts(backend, owners)]
        if users:
            accounts = _accounts(backend, users)
            found = [s for s in found if accounts & {s.owner_id, *s.permissions}]
        found = filtered(
            found, params.get("Filters", []), _SNAPSHOT_FILTERS, lambda s: _own_tags(backend, s)
        )
        # DescribeSnapshots, MaxResults: from 5 on.
        shown, token = sorted_page(found, params, lambda s: s.id, least=5)
        snapshots = [described_snapshot(backend, snapshot) for snapshot in shown]
        return ActionResult({"Snapshots": snapshots, **({"NextToken": token} if token else {})})


def _own_tags(backend: Any, thing: Any) -> dict[str, str]:
    """Nobody sees the tags of another's image or snapshot."""
    return dict(backend.tags.get(thing.id, {})) if thing.owner_id == backend.account_id else {}
