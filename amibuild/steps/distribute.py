"""Tells the account that the image is proven, and shares it as the recipe says."""

from __future__ import annotations

from collections.abc import Sequence

from amibuild.aws.images import Image
from amibuild.aws.session import Cloud
from amibuild.names import Tag


def distribute(cloud: Cloud, image: Image, accounts: Sequence[str]) -> None:
    """From here on the image is a result: marked as verified, and no longer with an end."""
    share(cloud, image.id, image.snapshots, accounts)
    mark(cloud, image, passed=True)


def share(
    cloud: Cloud, image_id: str, snapshot_ids: Sequence[str], accounts: Sequence[str]
) -> None:
    """Lets these accounts launch it, beside those that may already; without any, no call."""
    if accounts:
        cloud.images.share(image_id, snapshot_ids, accounts)


def mark(cloud: Cloud, image: Image, *, passed: bool) -> None:
    """Writes how the image's last proof ended. One that failed is not reused or promoted."""
    ids = [image.id, *image.snapshots]
    cloud.images.tag(ids, {Tag.VERIFIED: "passed" if passed else "failed"})
    if passed:
        cloud.images.untag(ids, Tag.EXPIRES)
