"""Tells the account that the image is proven, and shares it as the recipe says."""

from __future__ import annotations

from collections.abc import Sequence

from amibuild.aws.images import Image
from amibuild.aws.session import Cloud
from amibuild.names import Tag


def distribute(cloud: Cloud, image: Image, accounts: Sequence[str]) -> None:
    """From here on the image is a result: marked as verified, and no longer with an end."""
    if accounts:
        cloud.images.share(image, accounts)
    mark(cloud, image, passed=True)


def mark(cloud: Cloud, image: Image, *, passed: bool) -> None:
    """Writes how the image's last proof ended. One that failed is not reused or promoted."""
    ids = [image.id, *image.snapshots]
    cloud.images.tag(ids, {Tag.VERIFIED: "passed" if passed else "failed"})
    if passed:
        cloud.images.untag(ids, Tag.EXPIRES)
