"""Images and their snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from amibuild.aws.ec2 import tag_list
from amibuild.aws.errors import calling
from amibuild.errors import AwsError, NotFound
from amibuild.names import AmiId

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import (
        ImageTypeDef,
        ResourceTypeRequestTypeDef,
        SnapshotTypeDef,
    )


@dataclass(frozen=True)
class Image:
    """What DescribeImages says. Sizes are GiB.

    `snapshots` are the ids behind its volumes, `root_snapshot` the one of its root device.
    """

    id: AmiId
    name: str
    state: str
    reason: str
    owner: str
    created: datetime
    architecture: str
    root_device: str
    size_gib: int
    snapshots: tuple[str, ...]
    root_snapshot: str
    tags: Mapping[str, str] = field(default_factory=dict)
    deprecation: datetime | None = None


# DescribeImageReferences takes ten, a filter 200 values (API reference).
REFERENCES_AT_ONCE = 10
FILTER_VALUES = 200
# Of what can name an image: all but the instances that are gone, and every version of a template,
# where EC2 by itself looks at ten.
ALIVE = ("pending", "running", "shutting-down", "stopping", "stopped")
DEEPEST = "10000"
WHO_NAMES: tuple[ResourceTypeRequestTypeDef, ...] = (
    {
        "ResourceType": "ec2:Instance",
        "ResourceTypeOptions": [{"OptionName": "state-name", "OptionValues": list(ALIVE)}],
    },
    {
        "ResourceType": "ec2:LaunchTemplate",
        "ResourceTypeOptions": [{"OptionName": "version-depth", "OptionValues": [DEEPEST]}],
    },
    {"ResourceType": "ssm:Parameter"},
    {"ResourceType": "imagebuilder:ImageRecipe"},
    {"ResourceType": "imagebuilder:ContainerRecipe"},
)


@dataclass(frozen=True)
class Reference:
    """Something of the account that names an image; `kind` is EC2's word, as `ec2:Instance`."""

    image_id: str
    kind: str
    arn: str


@dataclass(frozen=True)
class Snapshot:
    id: str
    started: datetime
    tags: Mapping[str, str]


class Images:
    def __init__(self, client: EC2Client, region: str) -> None:
        self._client = client
        self._region = region

    def image(self, image_id: str) -> Image:
        """DescribeImages for one. Raises: NotFound."""
        with calling("DescribeImages", self._region, image_id):
            found = self._client.describe_images(ImageIds=[image_id], IncludeDisabled=True)[
                "Images"
            ]
            if found:
                return _image(found[0])
        raise NotFound(
            operation="DescribeImages",
            code="InvalidAMIID.NotFound",
            message="no such image",
            region=self._region,
            resource=image_id,
        )

    def search(self, *, owners: Sequence[str], filters: Mapping[str, Sequence[str]]) -> list[Image]:
        """DescribeImages by owner and filters, disabled ones too, newest first."""
        with calling("DescribeImages", self._region):
            pages = self._client.get_paginator("describe_images").paginate(
                Owners=list(owners),
                IncludeDisabled=True,
                Filters=[{"Name": name, "Values": list(v)} for name, v in filters.items()],
            )
            found = [_image(image) for page in pages for image in page["Images"]]
        return sorted(found, key=lambda image: (image.created, image.name), reverse=True)

    def create(
        self,
        instance_id: str,
        name: str,
        description: str,
        tags: Mapping[str, str],
        *,
        stopped: bool = True,
    ) -> AmiId:
        """CreateImage; the same tags go on the image and its snapshots.

        An instance that is not stopped is shut down by EC2, and started again once its snapshots
        have begun (EC2 user guide, "Create an AMI": data is at rest meanwhile).
        """
        with calling("CreateImage", self._region, name):
            made = self._client.create_image(
                InstanceId=instance_id,
                Name=name,
                Description=description,
                NoReboot=stopped,
                TagSpecifications=[
                    {"ResourceType": "image", "Tags": tag_list(tags)},
                    {"ResourceType": "snapshot", "Tags": tag_list(tags)},
                ],
            )
            return AmiId(made["ImageId"])

    def tag(self, ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """CreateTags."""
        with calling("CreateTags", self._region, ", ".join(ids)):
            self._client.create_tags(Resources=list(ids), Tags=tag_list(tags))

    def untag(self, ids: Sequence[str], key: str) -> None:
        """DeleteTags."""
        with calling("DeleteTags", self._region, ", ".join(ids)):
            self._client.delete_tags(Resources=list(ids), Tags=[{"Key": key}])

    def share(self, image_id: str, snapshot_ids: Sequence[str], accounts: Sequence[str]) -> None:
        """ModifyImageAttribute, and ModifySnapshotAttribute for each snapshot behind it."""
        users = list(accounts)
        with calling("ModifyImageAttribute", self._region, image_id):
            self._client.modify_image_attribute(
                ImageId=image_id, LaunchPermission={"Add": [{"UserId": u} for u in users]}
            )
        for snapshot in snapshot_ids:
            with calling("ModifySnapshotAttribute", self._region, snapshot):
                self._client.modify_snapshot_attribute(
                    SnapshotId=snapshot,
                    Attribute="createVolumePermission",
                    OperationType="add",
                    UserIds=users,
                )

    def deprecate(self, image_id: str, at: datetime) -> None:
        """EnableImageDeprecation; EC2 rounds to the minute, and takes no time that is past."""
        with calling("EnableImageDeprecation", self._region, image_id):
            self._client.enable_image_deprecation(ImageId=image_id, DeprecateAt=at)

    def disable(self, image_id: str) -> None:
        """DisableImage: nobody can launch it, and it is shared with nobody any longer."""
        with calling("DisableImage", self._region, image_id):
            self._client.disable_image(ImageId=image_id)

    def deregister(self, image_id: str) -> None:
        """DeregisterImage; its snapshots stay."""
        with calling("DeregisterImage", self._region, image_id):
            self._client.deregister_image(ImageId=image_id)

    def delete_snapshot(self, snapshot_id: str) -> None:
        with calling("DeleteSnapshot", self._region, snapshot_id):
            self._client.delete_snapshot(SnapshotId=snapshot_id)

    def snapshot_progress(self, snapshot_id: str) -> str:
        """DescribeSnapshots: its progress, such as `42%`; empty when it is not known yet."""
        try:
            with calling("DescribeSnapshots", self._region, snapshot_id):
                found = self._client.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
        except AwsError:
            return ""
        return found[0].get("Progress", "") if found else ""

    def has_snapshot(self, snapshot_id: str) -> bool:
        """DescribeSnapshots: whether EC2 knows it."""
        try:
            with calling("DescribeSnapshots", self._region, snapshot_id):
                self._client.describe_snapshots(SnapshotIds=[snapshot_id])
        except NotFound:
            return False
        return True

    def tagged(self, tags: Mapping[str, str]) -> list[str]:
        return [
            image.id
            for image in self.search(
                owners=["self"], filters={f"tag:{key}": [value] for key, value in tags.items()}
            )
        ]

    def snapshots_tagged(self, tags: Mapping[str, str]) -> list[str]:
        filters = {f"tag:{key}": value for key, value in tags.items()}
        return [snapshot["SnapshotId"] for snapshot in self._snapshots(filters)]

    def snapshots_with(self, key: str) -> dict[str, dict[str, str]]:
        """Snapshot id -> its tags, for those that have this one."""
        return {
            snapshot["SnapshotId"]: {tag["Key"]: tag["Value"] for tag in snapshot["Tags"]}
            for snapshot in self._snapshots({"tag-key": key})
        }

    def snapshots_like(self, tags: Mapping[str, str]) -> list[Snapshot]:
        """Those with these tags."""
        return [
            Snapshot(
                raw["SnapshotId"],
                raw["StartTime"],
                {tag["Key"]: tag["Value"] for tag in raw.get("Tags", [])},
            )
            for raw in self._snapshots({f"tag:{key}": value for key, value in tags.items()})
        ]

    def without_image(self, snapshot_ids: Sequence[str]) -> list[str]:
        """DescribeImages: those of the snapshots that no image of the account is made of."""
        named: set[str] = set()
        for first in range(0, len(snapshot_ids), FILTER_VALUES):
            some = snapshot_ids[first : first + FILTER_VALUES]
            filters = {"block-device-mapping.snapshot-id": some}
            for image in self.search(owners=["self"], filters=filters):
                named |= set(image.snapshots)
        return [id_ for id_ in snapshot_ids if id_ not in named]

    def references(self, image_ids: Sequence[str]) -> list[Reference]:
        """DescribeImageReferences: what of this account and region names these images."""
        found: list[Reference] = []
        for first in range(0, len(image_ids), REFERENCES_AT_ONCE):
            some = list(image_ids[first : first + REFERENCES_AT_ONCE])
            with calling("DescribeImageReferences", self._region, ", ".join(some)):
                pages = self._client.get_paginator("describe_image_references").paginate(
                    ImageIds=some, ResourceTypes=WHO_NAMES
                )
                found += [
                    Reference(one["ImageId"], one["ResourceType"], one["Arn"])
                    for page in pages
                    for one in page["ImageReferences"]
                ]
        return found

    def _snapshots(self, filters: Mapping[str, str]) -> list[SnapshotTypeDef]:
        with calling("DescribeSnapshots", self._region):
            pages = self._client.get_paginator("describe_snapshots").paginate(
                OwnerIds=["self"],
                Filters=[{"Name": name, "Values": [value]} for name, value in filters.items()],
            )
            return [snapshot for page in pages for snapshot in page["Snapshots"]]


def _image(raw: ImageTypeDef) -> Image:
    mappings: list[Any] = [m["Ebs"] for m in raw.get("BlockDeviceMappings", []) if "Ebs" in m]
    root = raw.get("RootDeviceName", "/dev/xvda")
    roots: list[Any] = [
        m["Ebs"]
        for m in raw.get("BlockDeviceMappings", [])
        if "Ebs" in m and m.get("DeviceName") == root
    ]
    return Image(
        id=AmiId(raw["ImageId"]),
        name=raw.get("Name", ""),
        state=raw["State"],
        reason=raw.get("StateReason", {}).get("Message", ""),
        owner=raw.get("OwnerId", ""),
        created=_moment(raw["CreationDate"]),
        architecture=raw.get("Architecture", ""),
        root_device=root,
        size_gib=roots[0].get("VolumeSize", 0) if roots else 0,
        snapshots=tuple(m["SnapshotId"] for m in mappings if m.get("SnapshotId")),
        root_snapshot=roots[0].get("SnapshotId", "") if roots else "",
        tags={tag["Key"]: tag["Value"] for tag in raw.get("Tags", [])},
        deprecation=_moment(raw["DeprecationTime"]) if raw.get("DeprecationTime") else None,
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
