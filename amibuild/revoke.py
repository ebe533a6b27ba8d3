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
from amibuild.channels import Channel, check_reason, pointing_at, read_channels
from amibuild.errors import UsageError
from amibuild.journal import Journal, Revoking, Subscriber, journal_path
from amibuild.names import Tag, new_bake_id
from amibuild.promote import referred_to, started, whoever
from amibuild.recipe.model import Recipe
from amibuild.registry import ImageFacts, list_images
from amibuild.stage import Stages, told
from amibuild.wait import Clock, Look, until

# Some seconds in practice.
DISABLED_S = 120
# EC2 rounds to the minute and takes no time that is past (EnableImageDeprecation).
SOON = timedelta(minutes=1)


@dataclass(frozen=True)
class Revocation:
    """`channels` still point at the image; `needed` is False when it is revoked as a whole."""

    image: ImageFacts
    channels: tuple[Channel, ...]

    @property
    def needed(self) -> bool:
        image = self.image
        return image.revoked is None or image.state != "disabled" or image.deprecation is None


def check_why(reason: str) -> None:
    """Raises: UsageError."""
    check_reason(reason)
    if not reason.strip():
        raise UsageError("--reason: say why, for who asks later")


def plan_revocation(cloud: Cloud, recipe: Recipe, reference: str) -> Revocation:
    """Raises: UsageError."""
    channels = read_channels(cloud, recipe)
    known = list_images(cloud, recipe.image.name)
    image = referred_to(recipe, known, channels, reference, cloud.region)
    if image.state not in {"available", "disabled"}:
        raise UsageError(
            f"{image.name} ({image.id}) is {image.state}: there is nothing to revoke",
            hint="`amibuild reap` removes what a dead bake left",
        )
    return Revocation(image, pointing_at(tuple(channels.values()), image.id))


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
    """The id of its journal, once EC2 says that the image is disabled; None without need.

    Raises: WaitTimeout.
    """
    check_why(reason)
    if not plan.needed:
        return None
    id_, image = new_bake_id(), plan.image
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
