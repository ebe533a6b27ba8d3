"""Takes an image back: nobody can launch it any longer, and no channel gets it.

Its tag comes first, which amibuild goes by, so that one that was revoked by half is refused like a
whole one; the call made again does what is missing. Machines that run go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from amibuild.aws.images import Image
from amibuild.aws.session import Cloud
from amibuild.channel_lines import Revoking
from amibuild.channels import (
    Channel,
    Verb,
    check_reason,
    pointing_at,
    read_channels,
    read_history,
    referred_to,
)
from amibuild.errors import UsageError
from amibuild.journal import Journal, Subscriber, journal_path
from amibuild.names import Tag, new_bake_id
from amibuild.promote import stand_in, started, way_back, whoever
from amibuild.recipe.model import Recipe
from amibuild.registry import ImageFacts, image_now, list_images
from amibuild.stage import Stages, told
from amibuild.wait import Clock, Look, until

# Some seconds in practice.
DISABLED_S = 120
# EC2 rounds to the minute and takes no time that is past (EnableImageDeprecation).
SOON = timedelta(minutes=1)


@dataclass(frozen=True)
class Mend:
    """What would give a channel another image than one that is revoked. `image` is None where
    there is none that could take its place; `flags` are what `promote` takes for it."""

    channel: Channel
    verb: Verb
    image: ImageFacts | None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Revocation:
    """`mends` are of the channels that still point at the image; `needed` is False when it is
    revoked as a whole."""

    image: ImageFacts
    mends: tuple[Mend, ...]

    @property
    def channels(self) -> tuple[Channel, ...]:
        return tuple(one.channel for one in self.mends)

    @property
    def needed(self) -> bool:
        return not _is_whole(self.image)


def _is_whole(image: ImageFacts) -> bool:
    return image.revoked is not None and image.state == "disabled" and image.deprecation is not None


def check_why(reason: str) -> None:
    """Raises: UsageError."""
    check_reason(reason)
    if not reason.strip():
        raise UsageError("--reason: say why, for who asks later")


def plan_revocation(
    cloud: Cloud, recipe: Recipe, reference: str, *, now: datetime | None = None
) -> Revocation:
    """Raises: UsageError."""
    channels = read_channels(cloud, recipe)
    known = list_images(cloud, recipe.image.name)
    image = referred_to(recipe, known, channels, reference, cloud.region)
    if image.state not in {"available", "disabled"}:
        raise UsageError(
            f"{image.name} ({image.id}) is {image.state}: there is nothing to revoke",
            hint="`amibuild reap` removes what a dead bake left",
        )
    moment, others = now or datetime.now(UTC), [one for one in known if one.id != image.id]
    mends = []
    for channel in pointing_at(tuple(channels.values()), image.id):
        history = read_history(cloud, channel.parameter)
        back, _ = way_back(others, history, image.id, moment)
        if back is not None:
            mends.append(Mend(channel, Verb.ROLLBACK, back))
            continue
        other, flags = stand_in(cloud, recipe, channels, others, channel.name, moment) or (None, ())
        mends.append(Mend(channel, Verb.PROMOTE, other, flags))
    return Revocation(image, tuple(mends))


def carry_out(
    cloud: Cloud,
    path: Path,
    plan: Revocation,
    *,
    target: str,
    reason: str,
    subscribers: Sequence[Subscriber],
    clock: Clock | None = None,
    now: datetime | None = None,
) -> str | None:
    """The id of its journal, once EC2 says that the image is disabled; None without need, also
    where somebody else has revoked it since it was looked at.

    Raises: NotFound, WaitTimeout.
    """
    check_why(reason)
    if not plan.needed:
        return None
    id_, image = new_bake_id(), image_now(cloud, plan.image.id)
    if _is_whole(image):
        return None
    with (
        Journal(journal_path(path.parent / ".amibuild", id_), tuple(subscribers)) as journal,
        told(
            journal,
            stages := Stages(journal, clock),
            started(id_, cloud, image, path, target, "revoke"),
        ),
        stages.run("revoke", f"{image.id} ({image.name})"),
    ):
        journal.write(
            Revoking(
                image=image.id,
                name=image.name,
                region=cloud.region,
                by=whoever(),
                reason=reason,
            )
        )
        if image.revoked is None:
            cloud.images.tag([image.id], {Tag.REVOKED: reason})
        if image.deprecation is None or image.deprecation > (now or datetime.now(UTC)) + SOON:
            cloud.images.deprecate(image.id, (now or datetime.now(UTC)) + SOON)
        if image.state != "disabled":
            cloud.images.disable(image.id)

        def look() -> Look[Image]:
            seen = cloud.images.image(image.id)
            return Look(seen.state, seen if seen.state == "disabled" else None)

        until(
            look,
            what=f"{image.id} to be disabled",
            timeout_s=DISABLED_S,
            clock=clock,
            observer=journal.show,
        )
    return id_
