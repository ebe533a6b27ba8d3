"""Why a channel should not get an image: what the image is, and what became of it in channels.

Each has the flag that `promote` takes for a yes to it, or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from amibuild.aws.session import Cloud
from amibuild.channels import Channel, Entry, read_channel, read_history, taken_back
from amibuild.names import Tag
from amibuild.recipe.model import Recipe
from amibuild.registry import ImageFacts

UNVERIFIED = "--allow-unverified"
DEPRECATED = "--allow-deprecated"
SKIP = "--allow-skip"
ROLLED_BACK = "--allow-rolled-back"


@dataclass(frozen=True)
class Objection:
    text: str
    flag: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.flag} takes it" if self.flag else self.text


def of_image(image: ImageFacts, now: datetime) -> list[Objection]:
    """What the service would not save has no flag, nor has what was taken back or is to go."""
    found = []
    if image.revoked is not None:
        found.append(Objection(f"it is revoked: {image.revoked}"))
    elif image.state != "available":
        found.append(Objection(f"it is {image.state}, not available"))
    elif image.is_deprecated(now):
        since = f"{image.deprecation:%Y-%m-%d}"
        found.append(Objection(f"it is deprecated since {since}", DEPRECATED))
    if Tag.EXPIRES in image.tags:
        found.append(
            Objection(
                "it is of a bake that failed or is not done: `amibuild reap` removes it once its "
                "time is over"
            )
        )
    elif not image.proven:
        found.append(Objection("it is not verified: `amibuild verify` proves it", UNVERIFIED))
    return found


@dataclass(frozen=True)
class Past:
    """What a channel has had, and by which rollback it was taken back, by image id."""

    channel: Channel
    had: frozenset[str]
    back: Mapping[str, Entry]

    def rolled_back(self, image_id: str) -> list[Objection]:
        entry = self.back.get(image_id)
        if entry is None:
            return []
        note = entry.note
        how = "from" if note is not None and note.previous == image_id else "past"
        why = f": {note.reason}" if note is not None and note.reason else ""
        when = f"{entry.at:%Y-%m-%d} by {entry.by}"
        text = f"{self.channel.name} was rolled back {how} it on {when}{why}"
        return [Objection(text, ROLLED_BACK)]


@dataclass(frozen=True)
class Ranks:
    """A channel, and the one `below` it, which images pass first."""

    order: tuple[str, ...]
    here: Past
    below: Past | None

    def against(self, image_id: str) -> list[Objection]:
        """Each image passes the channels in their order; it need not be in the one before still,
        but where it was taken back it has not passed."""
        found = self.here.rolled_back(image_id)
        if self.below is None or self.below.channel.image_id == image_id:
            return found
        if image_id not in self.below.had:
            order = " -> ".join(self.order)
            name = self.below.channel.name
            return [*found, Objection(f"it has not been in {name} ({order})", SKIP)]
        return found + self.below.rolled_back(image_id)

    def now(self, cloud: Cloud) -> Ranks:
        """As it is now, for who holds the lock of the channel itself."""
        if self.below is None:
            return self
        return replace(self, below=_past(cloud, read_channel(cloud, self.below.channel)))


def read_ranks(cloud: Cloud, recipe: Recipe, channels: Mapping[str, Channel], to: str) -> Ranks:
    order = tuple(recipe.channels.order)
    rank = order.index(to)
    below = _past(cloud, channels[order[rank - 1]]) if rank else None
    return Ranks(order, _past(cloud, channels[to]), below)


def _past(cloud: Cloud, channel: Channel) -> Past:
    """Without the parameter there is no history either."""
    entries = read_history(cloud, channel.parameter) if channel.current is not None else ()
    return Past(channel, frozenset(entry.image_id for entry in entries), taken_back(entries))
