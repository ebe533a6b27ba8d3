"""The channels of an image as the account has them: where each points, and where it did before.

A channel is a parameter of data type aws:ec2:image. Who moved it and why stands in the description
of each version, so that the parameter's own history is the record and nothing can part from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, ValidationError

from amibuild.aws.session import Cloud
from amibuild.aws.ssm import ParameterVersion
from amibuild.errors import AwsError, NotFound, UsageError
from amibuild.names import Region, channel_parameter
from amibuild.recipe.model import Recipe
from amibuild.registry import ImageFacts, list_images, named

# A description has up to 1,024 characters (PutParameter), an EC2 tag's value up to 256.
DESCRIPTION_LIMIT = 1024
REASON_LIMIT = 256
WHO_LIMIT = 128


class Verb(StrEnum):
    PROMOTE = "promote"
    ROLLBACK = "rollback"


class Note(BaseModel):
    """The description of one version. `move` is the id of the journal that tells of it.

    A later version of amibuild may say more. Others write parameters too: their words are no note,
    nor is what their version has kept of ours, which is for another `image`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    move: str
    image: str
    verb: Verb
    by: str
    reason: str = ""
    previous: str | None = None
    name: str = ""


@dataclass(frozen=True)
class Channel:
    """`current` is None for one that nobody has promoted to yet."""

    name: str
    image: str
    parameter: str
    region: Region
    current: ParameterVersion | None

    @property
    def image_id(self) -> str | None:
        return self.current.value if self.current else None

    @property
    def version(self) -> int:
        return self.current.version if self.current else 0


@dataclass(frozen=True)
class Entry:
    """One version of a channel. Without a `note` something else than amibuild wrote it."""

    version: int
    image_id: str
    at: datetime
    user: str
    note: Note | None

    @property
    def by(self) -> str:
        return self.note.by if self.note else self.user


def parameter_of(recipe: Recipe, channel: str) -> str:
    """Raises: UsageError for one that the recipe does not have."""
    if channel not in recipe.channels.order:
        raise UsageError(
            f"{recipe.image.name} has no channel {channel}",
            hint=f"it has {', '.join(recipe.channels.order)}: channels.order in the recipe",
        )
    return channel_parameter(recipe.channels.parameter, recipe.image.name, channel)


def read_channels(cloud: Cloud, recipe: Recipe) -> dict[str, Channel]:
    """All channels of the recipe in this cloud's region, by name, in their order."""
    names = {channel: parameter_of(recipe, channel) for channel in recipe.channels.order}
    found = cloud.ssm.versions(list(names.values()))
    return {
        channel: Channel(channel, recipe.image.name, name, cloud.region, found.get(name))
        for channel, name in names.items()
    }


def read_channel(cloud: Cloud, channel: Channel) -> Channel:
    """The same as it is now."""
    found = cloud.ssm.versions([channel.parameter]).get(channel.parameter)
    return Channel(channel.name, channel.image, channel.parameter, channel.region, found)


def read_history(cloud: Cloud, parameter: str) -> tuple[Entry, ...]:
    """What a channel has had, oldest first; the service keeps 100 versions."""
    try:
        found = cloud.ssm.history(parameter)
    except NotFound:
        return ()
    return tuple(Entry(v.version, v.value, v.modified, v.user, note_of(v)) for v in found)


def note_of(version: ParameterVersion) -> Note | None:
    try:
        note = Note.model_validate_json(version.description)
    except ValidationError:
        return None
    return note if note.image == version.value else None


def trail(entries: Iterable[Entry]) -> list[str]:
    """The images that a channel came by to where it is, the current one last.

    A rollback takes back what was promoted since: a second one goes further, and not to what the
    first has left.
    """
    way, _ = _walk(entries)
    return way


def taken_back(entries: Iterable[Entry]) -> dict[str, Entry]:
    """By image id, the rollback from it or past it, for each that the channel has not got again
    since."""
    _, back = _walk(entries)
    return back


def _walk(entries: Iterable[Entry]) -> tuple[list[str], dict[str, Entry]]:
    way: list[str] = []
    back: dict[str, Entry] = {}
    for entry in entries:
        image = entry.image_id
        if entry.note is not None and entry.note.verb is Verb.ROLLBACK and image in way:
            # The last time that it had it: what it had between that and an earlier one is a place
            # to go back to still.
            end = len(way) - way[::-1].index(image)
            back |= dict.fromkeys(way[end:], entry)
            del way[end:]
        elif not way or way[-1] != image:
            way.append(image)
        back.pop(image, None)
    return way, back


def referred_to(
    recipe: Recipe,
    known: Sequence[ImageFacts],
    channels: Mapping[str, Channel],
    reference: str,
    region: str,
) -> ImageFacts:
    """The image of this recipe that a person named: by id, version, name, or as `@channel`.

    Raises: UsageError.
    """
    if not reference.startswith("@"):
        return named(known, recipe.image.name, reference, region)
    name = reference.removeprefix("@")
    parameter = parameter_of(recipe, name)
    image_id = channels[name].image_id
    if image_id is None:
        raise UsageError(
            f"{reference}: nothing was promoted to {name} yet: there is no {parameter} in {region}"
        )
    found = one_of(known, image_id)
    if found is None:
        raise UsageError(
            f"{reference}: {image_id} is gone, or no image of {recipe.image.name}",
            hint=f"`amibuild rollback {name}` goes back to one that is there",
        )
    return found


def find(cloud: Cloud, recipe: Recipe, reference: str) -> ImageFacts:
    """The same for who needs no more than that: what other recipes' images are, by id, is found
    too. Raises: UsageError."""
    channels = read_channels(cloud, recipe) if reference.startswith("@") else {}
    known = list_images(cloud, None if reference.startswith("ami-") else recipe.image.name)
    return referred_to(recipe, known, channels, reference, cloud.region)


def one_of(known: Sequence[ImageFacts], image_id: str | None) -> ImageFacts | None:
    return next((one for one in known if one.id == image_id), None)


def check_reason(reason: str) -> None:
    """Raises: UsageError."""
    if len(reason) > REASON_LIMIT or not all(c.isprintable() for c in reason):
        raise UsageError(
            f"--reason: up to {REASON_LIMIT} characters of one line",
            hint="the whole story belongs into a ticket: name it here",
        )


def pointing_at(channels: Sequence[Channel], image_id: str) -> tuple[Channel, ...]:
    return tuple(one for one in channels if one.image_id == image_id)


@dataclass(frozen=True)
class Seen:
    """A channel in one region; `image` is None where it is empty, or what it has is gone or is no
    image of the recipe: then `foreign` is the name of that."""

    channel: Channel
    image: ImageFacts | None
    foreign: str = ""

    @property
    def version(self) -> str:
        """Of the image, by which regions compare: its id is another in each."""
        if self.channel.current is None:
            return "nothing"
        return self.image.version if self.image else self.foreign or "gone"


def survey(cloud: Cloud, recipe: Recipe) -> dict[str, tuple[Seen, ...]]:
    """The channels in each region that the recipe publishes to, the cloud's own first."""
    found = {}
    for region in dict.fromkeys((cloud.region, *recipe.publish.regions)):
        there = cloud if region == cloud.region else cloud.in_region(region)
        known = {one.id: one for one in list_images(there, recipe.image.name)}
        found[str(region)] = tuple(
            _seen(there, channel, known.get(channel.image_id or ""))
            for channel in read_channels(there, recipe).values()
        )
    return found


def _seen(cloud: Cloud, channel: Channel, image: ImageFacts | None) -> Seen:
    if image is not None or channel.image_id is None:
        return Seen(channel, image)
    try:
        return Seen(channel, None, cloud.images.image(channel.image_id).name)
    except AwsError as error:
        # Whoever wrote it may have written anything.
        if not error.code.startswith("InvalidAMIID."):
            raise
    return Seen(channel, None)


def drift(regions: Mapping[str, Sequence[Seen]], number: int) -> dict[str, str]:
    """Region -> the image's version there, of the channel with that number, where it is another
    than in the first region."""
    first, *others = regions
    here = regions[first][number].version
    return {
        region: regions[region][number].version
        for region in others
        if regions[region][number].version != here
    }
