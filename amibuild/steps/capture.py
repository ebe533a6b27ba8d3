"""Turns the builder into a versioned image."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from amibuild.aws.images import Image
from amibuild.aws.session import Cloud
from amibuild.errors import Duplicate, NotFound, ResourceFailed, WaitTimeout
from amibuild.journal import ResourceKind
from amibuild.names import Tag, ami_name, next_version
from amibuild.scope import SEARCH_S, Scope
from amibuild.wait import Look, Observer, until

log = logging.getLogger(__name__)

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
    filters = {f"tag:{Tag.IMAGE}": [image]}
    there = cloud.images.search(owners=["self"], filters=filters)
    taken = [one.tags.get(Tag.VERSION, "") for one in there]
    purpose = "image" if stopped else "image-spot"
    for attempt in range(1, NAME_TRIES + 1):
        version = next_version(taken, datetime.now(UTC))
        name = ami_name(image, version)

        def create(token: str, version: str = version, name: str = name) -> str:
            marks = {**tags, Tag.VERSION: version, Tag.TOKEN: token, "Name": name}
            told = description or f"{image} {version}, made by amibuild"
            try:
                return cloud.images.create(instance_id, name, told, marks, stopped=stopped)
            except Duplicate as error:
                # CreateImage has no client token: the name may be taken by our own call, whose
                # answer was lost.
                holder = _holder(cloud, name)
                if holder is not None and holder.tags.get(Tag.TOKEN) == token:
                    return holder.id
                error.answered = holder is not None
                raise

        try:
            # A token of its own for each name: what hides behind one that is taken, and may be
            # ours, is then no part of this image.
            which = purpose if attempt == 1 else f"{purpose}-{attempt}"
            id_ = scope.own(ResourceKind.IMAGE, which, name, create)
        except Duplicate as error:
            if not error.answered:
                log.warning("%s is taken, and what has it can't be seen: trying the next", name)
            if attempt == NAME_TRIES:
                raise
            taken.append(version)
        else:
            return Captured(id_, name, version)
    raise AssertionError("unreachable")


def _holder(cloud: Cloud, name: str) -> Image | None:
    """The image that has this name already; None when it is not seen in time."""

    def look() -> Look[Image]:
        found = cloud.images.search(owners=["self"], filters={"name": [name]})
        return Look("not visible yet", found[0] if found else None)

    try:
        return until(look, what=name, timeout_s=SEARCH_S)
    except WaitTimeout:
        return None


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
