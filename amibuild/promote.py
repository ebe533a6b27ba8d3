"""Moves a channel to another image: promotion, and the way back.

In two parts, so that somebody can say yes between them: `plan_promotion` and `plan_rollback` look
and refuse, `carry_out` takes the channel's lock, makes sure that it still is as it was shown,
writes, and reads back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from amibuild import __version__, lock
from amibuild.aws.removal import CloudRemover
from amibuild.aws.session import Cloud
from amibuild.channels import (
    WHO_LIMIT,
    Channel,
    Note,
    Verb,
    check_reason,
    parameter_of,
    read_channels,
    read_history,
    trail,
)
from amibuild.errors import PromotionRefused, UsageError
from amibuild.journal import BakeStarted, Journal, Subscriber, journal_path
from amibuild.names import BakeId, new_bake_id
from amibuild.recipe.model import Recipe
from amibuild.registry import ImageFacts, list_images, named
from amibuild.scope import Scope
from amibuild.stage import Stages, told
from amibuild.steps.channel import held, set_channel
from amibuild.steps.lock import Overtaken
from amibuild.wait import Clock


@dataclass(frozen=True)
class Allowed:
    """What the caller has said yes to by name, on the command line."""

    unverified: bool = False
    deprecated: bool = False
    skip: bool = False

    @property
    def flags(self) -> frozenset[str]:
        said = {
            "--allow-unverified": self.unverified,
            "--allow-deprecated": self.deprecated,
            "--allow-skip": self.skip,
        }
        return frozenset(flag for flag, yes in said.items() if yes)


@dataclass(frozen=True)
class Move:
    """`before` is None for a channel's first image, and where what it has is gone.

    `passed_over` are the images that a rollback can't go back to, each with the reason.
    """

    verb: Verb
    channel: Channel
    image: ImageFacts
    before: ImageFacts | None
    passed_over: tuple[str, ...] = ()

    @property
    def needed(self) -> bool:
        return self.channel.image_id != self.image.id


@dataclass(frozen=True)
class MoveResult:
    """`version` is the parameter's. `id` names the journal; None when nothing had to change."""

    move: Move
    version: int
    id: str | None


def plan_promotion(
    cloud: Cloud,
    recipe: Recipe,
    reference: str,
    to: str,
    allowed: Allowed,
    *,
    now: datetime | None = None,
) -> Move:
    """Raises: UsageError for what there is not, PromotionRefused with every reason."""
    parameter_of(recipe, to)
    channels = read_channels(cloud, recipe)
    known = list_images(cloud, recipe.image.name)
    image = referred_to(recipe, known, channels, reference, cloud.region)
    move = Move(Verb.PROMOTE, channels[to], image, _of(known, channels[to].image_id))
    if not move.needed:
        return move
    found = [
        *_objections(image, now or datetime.now(UTC)),
        *_skips(cloud, recipe, channels, image, to),
    ]
    reasons = [str(one) for one in found if one.flag not in allowed.flags]
    if reasons:
        raise PromotionRefused(
            f"{image.name} ({image.id}) is not promoted to {to}",
            reasons,
            hint=None if image.revoked is None else "a revoked image stays revoked: bake again",
        )
    return move


def plan_rollback(
    cloud: Cloud,
    recipe: Recipe,
    channel: str,
    reference: str | None,
    *,
    now: datetime | None = None,
) -> Move:
    """To the image named, which must have been in the channel, or to the last one that it had
    and that can still be used. Raises: UsageError, PromotionRefused."""
    parameter = parameter_of(recipe, channel)
    channels = read_channels(cloud, recipe)
    known = list_images(cloud, recipe.image.name)
    entries = read_history(cloud, parameter)
    moment, current = now or datetime.now(UTC), channels[channel]
    before = _of(known, current.image_id)
    if reference is not None:
        image = referred_to(recipe, known, channels, reference, cloud.region)
        if image.id not in {entry.image_id for entry in entries}:
            raise UsageError(
                f"{image.name} ({image.id}) has not been in {channel}, as far as its history goes",
                hint=f"`amibuild channels history {channel}` has what was; promote brings new ones",
            )
        move = Move(Verb.ROLLBACK, current, image, before)
        if move.needed and (reasons := _unusable(image, moment)):
            raise PromotionRefused(f"{channel} can't go back to {image.name} ({image.id})", reasons)
        return move
    passed_over: list[str] = []
    for image_id in reversed(trail(entries)):
        if image_id == current.image_id:
            continue
        found = _of(known, image_id)
        reasons = _unusable(found, moment) if found else ["it is gone"]
        if found is not None and not reasons:
            return Move(Verb.ROLLBACK, current, found, before, tuple(passed_over))
        passed_over.append(f"{found.name if found else image_id}: {'; '.join(reasons)}")
    raise PromotionRefused(
        f"there is no image that {channel} could go back to",
        passed_over or ["it has had no other one"],
        hint=f"`amibuild promote IMAGE --to {channel}` brings another",
    )


def carry_out(
    cloud: Cloud,
    path: Path,
    move: Move,
    *,
    target: str,
    reason: str,
    subscribers: Sequence[Subscriber],
    clock: Clock | None = None,
) -> MoveResult:
    """Once it is read back. Without anything to do no call is made, and no journal.

    Raises: ChannelBusy, WaitTimeout, LeftoverError.
    """
    check_reason(reason)
    if not move.needed:
        return MoveResult(move, move.channel.version, None)
    while True:
        try:
            return _carry_out(cloud, path, move, target, reason, subscribers, clock)
        except Overtaken:  # whoever that was: their lock or their move is seen now
            continue


def _carry_out(
    cloud: Cloud,
    path: Path,
    move: Move,
    target: str,
    reason: str,
    subscribers: Sequence[Subscriber],
    clock: Clock | None,
) -> MoveResult:
    """Raises: Overtaken."""
    id_, state_dir = new_bake_id(), path.parent / ".amibuild"
    note = Note(
        move=id_,
        image=move.image.id,
        verb=move.verb,
        by=whoever(),
        reason=reason,
        previous=move.channel.image_id,
        name=move.image.name,
    )
    with (
        Journal(journal_path(state_dir, id_), tuple(subscribers)) as journal,
        told(
            journal,
            stages := Stages(journal, clock),
            started(id_, cloud, move.image, path, target, move.verb),
        ),
        Scope(
            journal, CloudRemover(cloud, clock), bake_id=id_, region=cloud.region, clock=clock
        ) as scope,
        stages.run(move.verb, f"{move.channel.name} to {move.image.id} ({move.image.name})"),
        held(cloud, scope, journal, id_, move.channel, state_dir, clock),
    ):
        there = set_channel(cloud, journal, move.channel, move.image.id, note, clock)
    return MoveResult(move, there.version, id_)


def started(
    id_: BakeId, cloud: Cloud, image: ImageFacts, path: Path, target: str, flow: str
) -> BakeStarted:
    """The first line of its journal: what `reap` goes by, when it died with the lock."""
    return BakeStarted(
        bake_id=id_,
        image=image.image,
        digest=image.digest,
        target=target,
        region=cloud.region,
        source_ami=image.id,
        recipe=str(path),
        pid=os.getpid(),
        version=__version__,
        flow=flow,
    )


def whoever() -> str:
    me = lock.here()
    return f"{me.user}@{me.host}"[:WHO_LIMIT]


def referred_to(
    recipe: Recipe,
    known: Sequence[ImageFacts],
    channels: dict[str, Channel],
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
    found = _of(known, image_id)
    if found is None:
        raise UsageError(
            f"{reference}: {image_id} is gone, or no image of {recipe.image.name}",
            hint=f"`amibuild rollback {name}` goes back to one that is there",
        )
    return found


def _of(known: Sequence[ImageFacts], image_id: str | None) -> ImageFacts | None:
    return next((one for one in known if one.id == image_id), None)


@dataclass(frozen=True)
class _Objection:
    """Why a channel should not have an image. `flag` is what promote takes for a yes to it."""

    text: str
    flag: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.flag} takes it" if self.flag else self.text


def _objections(image: ImageFacts, now: datetime) -> list[_Objection]:
    """What the service would not save has no flag, nor has what was taken back."""
    found = []
    if image.revoked is not None:
        found.append(_Objection(f"it is revoked: {image.revoked}"))
    elif image.state != "available":
        found.append(_Objection(f"it is {image.state}, not available"))
    elif image.is_deprecated(now):
        since = f"{image.deprecation:%Y-%m-%d}"
        found.append(_Objection(f"it is deprecated since {since}", "--allow-deprecated"))
    if not image.proven:
        found.append(
            _Objection("it is not verified: `amibuild verify` proves it", "--allow-unverified")
        )
    return found


def _unusable(image: ImageFacts, now: datetime) -> list[str]:
    return [one.text for one in _objections(image, now)]


def _skips(
    cloud: Cloud, recipe: Recipe, channels: dict[str, Channel], image: ImageFacts, to: str
) -> list[_Objection]:
    """Each image passes the channels in their order; it need not be in the one before still."""
    rank = recipe.channels.order.index(to)
    if rank == 0:
        return []
    below = channels[recipe.channels.order[rank - 1]]
    if below.image_id == image.id:
        return []
    if any(e.image_id == image.id for e in read_history(cloud, below.parameter)):
        return []
    order = " -> ".join(recipe.channels.order)
    return [_Objection(f"it has not been in {below.name} ({order})", "--allow-skip")]
