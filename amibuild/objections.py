"""Why a channel should not get an image: what the image is, and what became of it in channels.

Each has the flag that `promote` takes for a yes to it, or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from amibuild.aws.session import Cloud
from amibuild.channels import Channel, Entry, read_history, taken_back
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
class Ranks:
    """What became of images in a channel and in the one `below` it, which they pass first. `back`
    and `back_below` are the rollbacks that took images back there, by image id."""

    order: tuple[str, ...]
    channel: Channel
    back: Mapping[str, Entry]
    below: Channel | None
    had_below: frozenset[str]
    back_below: Mapping[str, Entry]

    def against(self, image_id: str) -> list[Objection]:
        """Each image passes the channels in their order; it need not be in the one before still,
        but where it was taken back it has not passed."""
        found = []
        if image_id in self.back:
            found.append(_rolled_back(self.channel, self.back[image_id], image_id))
        if self.below is None or self.below.image_id == image_id:
            return found
        if image_id in self.back_below:
            found.append(_rolled_back(self.below, self.back_below[image_id], image_id))
        elif image_id not in self.had_below:
            order = " -> ".join(self.order)
            found.append(Objection(f"it has not been in {self.below.name} ({order})", SKIP))
        return found


def read_ranks(cloud: Cloud, recipe: Recipe, channels: Mapping[str, Channel], to: str) -> Ranks:
    order = tuple(recipe.channels.order)
    rank = order.index(to)
    below = channels[order[rank - 1]] if rank else None
    entries_below = _history(cloud, below) if below is not None else ()
    return Ranks(
        order,
        channels[to],
        taken_back(_history(cloud, channels[to])),
        below,
        frozenset(entry.image_id for entry in entries_below),
        taken_back(entries_below),
    )


def _history(cloud: Cloud, channel: Channel) -> tuple[Entry, ...]:
    """Without the parameter there is none."""
    return read_history(cloud, channel.parameter) if channel.current is not None else ()


def _rolled_back(channel: Channel, entry: Entry, image_id: str) -> Objection:
    note = entry.note
    how = "from" if note is not None and note.previous == image_id else "past"
    why = f": {note.reason}" if note is not None and note.reason else ""
    when = f"{entry.at:%Y-%m-%d} by {entry.by}"
    return Objection(f"{channel.name} was rolled back {how} it on {when}{why}", ROLLED_BACK)
