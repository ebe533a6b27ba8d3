"""Turns the builder into a versioned image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from amibuild.aws.images import Image
from amibuild.aws.session import Cloud
from amibuild.errors import Duplicate, NotFound, ResourceFailed
from amibuild.journal import ResourceKind
from amibuild.names import Tag, ami_name, next_version
from amibuild.scope import Scope
from amibuild.wait import Look, Observer, until

NAME_TRIES = 20
DEAD = frozenset({"failed", "error", "invalid", "deregistered", "disabled"})


@dataclass(frozen=True)
class Captured:
    image_id: str
    name: str
    version: str


def capture(
    cloud: Cloud,
    scope: Scope,
    instance_id: str,
    image: str,
    description: str,
    tags: Mapping[str, str],
    *,
    stopped: bool = True,
) -> Captured:
    """The image, pending yet, owned by the scope. The version is the day's next free one.

    A builder that is not `stopped` is shut down by the same call: one that can't be otherwise.

    Two bakes may want the same name: EC2 gives it to one, and the other takes the next.
    """
    named: list[str] = []

    def create(token: str) -> str:
        taken = [
            one.tags.get(Tag.VERSION, "")
            for one in cloud.images.search(owners=["self"], filters={f"tag:{Tag.IMAGE}": [image]})
        ]
        for attempt in range(NAME_TRIES):
            version = next_version(taken, datetime.now(UTC))
            name = ami_name(image, version)
            try:
                id_ = cloud.images.create(
                    instance_id,
                    name,
                    description or f"{image} {version}, made by amibuild",
                    {**tags, Tag.VERSION: version, Tag.TOKEN: token, "Name": name},
                    stopped=stopped,
                )
            except Duplicate:
                # CreateImage has no client token: the name may be taken by our own call, whose
                # answer was lost.
                ours = cloud.images.search(owners=["self"], filters={f"tag:{Tag.TOKEN}": [token]})
                if ours:
                    named.append(ours[0].tags[Tag.VERSION])
                    return ours[0].id
                if attempt == NAME_TRIES - 1:
                    raise
                taken.append(version)
            else:
                named.append(version)
                return id_
        raise AssertionError("unreachable")

    id_ = scope.own(ResourceKind.IMAGE, "image" if stopped else "image-spot", f"{image}-*", create)
    return Captured(id_, ami_name(image, named[0]), named[0])


def wait_until_available(
    cloud: Cloud, image_id: str, *, timeout_s: float, observer: Observer
) -> Image:
    """The image once EC2 would launch it.

    Raises: ResourceFailed on a dead state, at once, with EC2's reason; WaitTimeout.
    """

    def look() -> Look[Image]:
        try:
            image = cloud.images.image(image_id)
        except NotFound:
            return Look("not visible yet")  # the first reads after CreateImage may miss it
        if image.state in DEAD:
            raise ResourceFailed(what=image_id, state=image.state, reason=image.reason)
        progress = (
            cloud.images.snapshot_progress(image.root_snapshot) if image.root_snapshot else ""
        )
        return Look(
            f"{image.state} {progress}".strip(), image if image.state == "available" else None
        )

    return until(look, what=image_id, timeout_s=timeout_s, observer=observer)
