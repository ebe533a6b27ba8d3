"""The images that amibuild made, as the account knows them: their tags are the registry."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from amibuild.aws.images import Image
from amibuild.aws.session import Cloud
from amibuild.errors import UsageError
from amibuild.names import Tag
from amibuild.outputs.terraform import Pinned


@dataclass(frozen=True)
class ImageFacts:
    """One image of ours. `image` is the recipe's name for it, `name` the AMI's."""

    id: str
    name: str
    image: str
    version: str
    digest: str
    state: str
    created: datetime
    verified: bool
    source_ami: str
    bake_id: str
    region: str
    size_gib: int
    snapshot_ids: tuple[str, ...]
    tags: Mapping[str, str]
    deprecation: datetime | None = None

    @property
    def proven(self) -> bool:
        """One with an end is a dead bake's that was not noted as a result: `reap` may take it."""
        return self.verified and Tag.EXPIRES not in self.tags

    @property
    def revoked(self) -> str | None:
        """Why, where it was: from the first step on, whatever became of the others."""
        return self.tags.get(Tag.REVOKED)

    def is_deprecated(self, now: datetime) -> bool:
        return self.deprecation is not None and self.deprecation <= now


def list_images(cloud: Cloud, image: str | None) -> tuple[ImageFacts, ...]:
    """All images of that name, or of every name; newest first."""
    filters = {f"tag:{Tag.IMAGE}": [image]} if image else {"tag-key": [Tag.IMAGE]}
    found = cloud.images.search(owners=["self"], filters=filters)
    return tuple(_facts(one, cloud.region) for one in found)


def image_now(cloud: Cloud, image_id: str) -> ImageFacts:
    """One image by a look of its own. Raises: NotFound."""
    return _facts(cloud.images.image(image_id), cloud.region)


def named(known: Sequence[ImageFacts], image: str, reference: str, region: str) -> ImageFacts:
    """That one of them. Raises: UsageError with the nearest ones there are."""
    for one in known:
        if reference in {one.id, one.name, one.version}:
            return one
    names = [text for one in known for text in (one.version, one.name, one.id)]
    near = difflib.get_close_matches(reference, names, n=3) or names[:3]
    raise UsageError(
        f"there is no image {reference} of {image} in {region}",
        hint=f"there is {', '.join(near)}" if near else "amibuild bake makes the first",
    )


def find_reusable(
    cloud: Cloud, *, image: str, digest: str, max_age_days: int, now: datetime | None = None
) -> ImageFacts | None:
    """The newest verified image with this digest that is young enough."""
    today = now or datetime.now(UTC)
    for one in list_images(cloud, image):
        if not_reusable(one, digest, max_age_days, today) is None:
            return one
    return None


def not_reusable(image: ImageFacts, digest: str, max_age_days: int, now: datetime) -> str | None:
    """What keeps a bake of this digest from using it again; None for one that it uses."""
    if image.digest != digest:
        return "its tag has another digest"
    if image.revoked is not None:
        return f"it is revoked: {image.revoked}"
    if image.state != "available":
        return f"it is {image.state}"
    if image.is_deprecated(now):
        return f"it is deprecated since {image.deprecation:%Y-%m-%d}"
    if image.tags.get(Tag.VERIFIED) == "failed":
        return "a verification of it failed"
    if not image.proven:
        return "it is not verified"
    if image.created < now - timedelta(days=max_age_days):
        return f"it is older than {max_age_days} days: security updates"
    return None


def pinned(image: ImageFacts) -> Pinned:
    """What Terraform is told of it."""
    return Pinned(image.id, image.name, image.version, image.digest, image.region, image.image)


def _facts(image: Image, region: str) -> ImageFacts:
    tags = image.tags
    return ImageFacts(
        id=image.id,
        name=image.name,
        image=tags.get(Tag.IMAGE, ""),
        version=tags.get(Tag.VERSION, ""),
        digest=tags.get(Tag.DIGEST, ""),
        state=image.state,
        created=image.created,
        verified=tags.get(Tag.VERIFIED) == "passed",
        source_ami=tags.get(Tag.SOURCE_AMI, ""),
        bake_id=tags.get(Tag.BAKE_ID, ""),
        region=region,
        size_gib=image.size_gib,
        snapshot_ids=image.snapshots,
        tags=dict(tags),
        deprecation=image.deprecation,
    )
