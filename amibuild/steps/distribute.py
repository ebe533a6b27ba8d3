"""Tells the account that the image is proven, and shares it as the recipe says."""

from __future__ import annotations

from collections.abc import Sequence

from amibuild import signals
from amibuild.aws.images import Image
from amibuild.aws.session import Cloud
from amibuild.errors import AwsError
from amibuild.names import Tag


def distribute(cloud: Cloud, image: Image, accounts: Sequence[str]) -> None:
    """From here on the image is a result: marked as verified, and no longer with an end."""
    share(cloud, image.id, image.snapshots, accounts)
    mark(cloud, image, passed=True)
    # An interrupt in this call would have the image removed, though it is a result by then.
    with signals.hold(deliver=False):
        _take_its_end(cloud, image)


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


def _take_its_end(cloud: Cloud, image: Image) -> None:
    """Of what has none any longer the role may take none, and so the second try of a call whose
    answer was lost is refused: whether it is gone counts."""
    try:
        cloud.images.untag([image.id, *image.snapshots], Tag.EXPIRES)
    except AwsError:
        if not _has_none(cloud, image.id):
            raise


def _has_none(cloud: Cloud, image_id: str) -> bool:
    try:
        return Tag.EXPIRES not in cloud.images.image(image_id).tags
    except AwsError:
        return False
