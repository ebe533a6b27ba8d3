"""What is in the account, as its owner would list it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from moto.ec2.models import ec2_backends

from amibuild import lock
from amibuild.local.overlay.desk import ACCOUNT, Desk
from tests.contract.conftest import REGION, Aws

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef

Account = dict[str, set[str]]
# In the name of an upload in parts that has not ended.
UPLOAD = "?uploadId="
NOT_GONE: FilterTypeDef = {
    "Name": "instance-state-name",
    "Values": ["pending", "running", "stopping", "stopped", "shutting-down"],
}


def account(aws: Aws) -> Account:
    """Everything in the account that costs money or stands in the way."""
    ec2 = aws.ec2
    instances = ec2.describe_instances(Filters=[NOT_GONE])["Reservations"]
    return {
        "instances": {i["InstanceId"] for r in instances for i in r["Instances"]},
        "images": {i["ImageId"] for i in ec2.describe_images(Owners=["self"])["Images"]},
        "snapshots": {
            s["SnapshotId"] for s in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        },
        "volumes": {v["VolumeId"] for v in ec2.describe_volumes()["Volumes"]},
        "groups": {g["GroupId"] for g in ec2.describe_security_groups()["SecurityGroups"]},
    }


def await_ends(aws: Aws) -> None:
    """A machine whose end a bake has begun goes on ending when the bake is killed."""

    def ending() -> str:
        found = aws.ec2.describe_instances(Filters=[NOT_GONE])["Reservations"]
        states = {i["State"]["Name"] for r in found for i in r["Instances"]}
        return "some are ending" if "shutting-down" in states else "none is ending"

    aws.until(ending, "none is ending")


def stored(aws: Aws) -> Account:
    """The parameters and the objects, which few tests make.

    A lock that is free is none, and a generation below the highest is nobody's: they stay.
    """
    locks = aws.ssm.get_parameters_by_path(Path="/amibuild", Recursive=True)["Parameters"]
    highest = {name.rpartition("/")[0]: name for name in sorted(one["Name"] for one in locks)}
    free = {
        one["Name"]
        for one in locks
        if one["Value"] == lock.RELEASED or one["Name"] not in highest.values()
    }
    buckets = [b["Name"] for b in aws.s3.list_buckets()["Buckets"]]
    return {
        "parameters": {
            p["Name"] for p in aws.ssm.describe_parameters()["Parameters"] if p["Name"] not in free
        },
        "objects": {
            f"s3://{bucket}/{one['Key']}"
            for bucket in buckets
            for one in aws.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        },
        "uploads in parts": {
            f"s3://{bucket}/{one['Key']}{UPLOAD}{one['UploadId']}"
            for bucket in buckets
            for one in aws.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        },
    }


def attached(aws: Aws) -> dict[str, str]:
    """What goes with something else: volume -> its instance, snapshot -> its image."""
    found = aws.ec2.describe_instances(Filters=[NOT_GONE])["Reservations"]
    owners = {
        mapping["Ebs"]["VolumeId"]: instance["InstanceId"]
        for reservation in found
        for instance in reservation["Instances"]
        for mapping in instance["BlockDeviceMappings"]
        if mapping["Ebs"]["DeleteOnTermination"]
    }
    for image in aws.ec2.describe_images(Owners=["self"])["Images"]:
        for mapping in image["BlockDeviceMappings"]:
            if "SnapshotId" in mapping.get("Ebs", {}):
                owners[mapping["Ebs"]["SnapshotId"]] = image["ImageId"]
    return owners


def with_attached(ids: set[str], owners: dict[str, str]) -> set[str]:
    """These, and what goes when they go; `owners` is what `attached` gave."""
    return ids | {thing for thing, owner in owners.items() if owner in ids}


def made_twice() -> list[str]:
    """The tokens under which there is more than one thing of a kind, or was.

    Read from the books of the endpoint in this process: a call would be counted by its faults.
    """
    with Desk.current.lock:
        tags = dict(ec2_backends[ACCOUNT][REGION].tags)
    kinds = Counter(
        f"{id_.partition('-')[0]} {values['amibuild:token']}"
        for id_, values in tags.items()
        if "amibuild:token" in values
    )
    return sorted(kind for kind, count in kinds.items() if count > 1)
