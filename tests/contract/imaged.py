"""What the tests of images and snapshots share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3

from amibuild.local.store import Store
from tests.contract.conftest import REGION, Aws, Start

ELSEWHERE = "eu-west-1"
STRANGER = "111122223333"
MISSING_IMAGE = "ami-0123456789abcdef0"
MISSING_SNAPSHOT = "snap-0123456789abcdef0"


def tagged(*kinds: str, **tags: str) -> list[dict[str, Any]]:
    """The same tags for several kinds of things; those that the bake tags without kinds."""
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    return [{"ResourceType": k, "Tags": pairs} for k in kinds or ("image", "snapshot")]


def tags_of(found: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}


def image(aws: Aws, image: str, **asked: Any) -> dict[str, Any]:
    return dict(aws.ec2.describe_images(ImageIds=[image], **asked)["Images"][0])


def snapshot(aws: Aws, snapshot: str) -> dict[str, Any]:
    return dict(aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0])


def snapshot_of(aws: Aws, id_: str) -> str:
    return str(image(aws, id_)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])


def names(aws: Aws, **asked: Any) -> list[str]:
    return [i["Name"] for i in aws.ec2.describe_images(**asked)["Images"]]


def available(aws: Aws, id_: str) -> str:
    aws.until(lambda: aws.image_state(id_), "available")
    return id_


def completed(aws: Aws, id_: str) -> str:
    aws.until(lambda: str(snapshot(aws, id_)["State"]), "completed")
    return id_


def copied(aws: Aws, source: str, **asked: Any) -> str:
    request = {"Name": "a-copy", "SourceImageId": source, "SourceRegion": REGION, **asked}
    return available(aws, aws.ec2.copy_image(**request)["ImageId"])


def in_region(aws: Aws, region: str) -> Aws:
    return Aws(aws.service, aws.session, region=region)


def as_account(aws: Aws, account: str) -> Aws:
    """The same endpoint as another account sees it."""
    role = f"arn:aws:iam::{account}:role/visitor"
    sts = aws.session.client("sts", endpoint_url=aws.service.url, region_name=aws.region)
    given = sts.assume_role(RoleArn=role, RoleSessionName="visitor")["Credentials"]
    session = boto3.Session(
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
        region_name=aws.region,
    )
    return Aws(aws.service, session, region=aws.region)


def also_restarted(aws: Aws, start: Start) -> Iterator[Aws]:
    """The endpoint as it is, then anew over the same folder."""
    yield aws
    yield start()


def change_on_disk(aws: Aws, data: Path, image: str, **changes: Any) -> None:
    """Ends the endpoint and changes what its store says of an image, as time would."""
    aws.service.close()
    with Store.open(data / "data" / "local" / "none" / "store") as store:
        (record,) = [found for found in store.images() if found.id == image]
        store.put_image(record.model_copy(update=changes))
