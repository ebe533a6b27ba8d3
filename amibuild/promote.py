"""Moves a channel to another image: promotion, and the way back.

In two parts, so that somebody can say yes between them: `plan_promotion` and `plan_rollback` look
and refuse, `carry_out` takes the channel's lock, makes sure that it still is as it was shown,
looks again at the image, writes, and reads back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from amibuild import __version__, lock
from amibuild.aws.removal import CloudRemover
from amibuild.aws.session import Cloud
from amibuild.channels import (
    WHO_LIMIT,
    Channel,
    Entry,
    Note,
    Verb,
    check_reason,
    one_of,
    parameter_of,
    read_channels,
    read_history,
    referred_to,
    trail,
)
from amibuild.errors import NotFound, PromotionRefused, UsageError
from amibuild.journal import BakeStarted, Journal, Subscriber, journal_path
from amibuild.names import BakeId, Tag, new_bake_id
from amibuild.objections import (
    DEPRECATED,
    ROLLED_BACK,
    SKIP,
    UNVERIFIED,
    Objection,
    Ranks,
    of_image,
    read_ranks,
)
from amibuild.recipe.model import Recipe
from amibuild.registry import ImageFacts, image_now, list_images
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
    rolled_back: bool = False

    @property
    def flags(self) -> frozenset[str]:
        said = {
            UNVERIFIED: self.unverified,
            DEPRECATED: self.deprecated,
            SKIP: self.skip,
            ROLLED_BACK: self.rolled_back,
        }
        return frozenset(flag for flag, yes in said.items() if yes)


@dataclass(frozen=True)
class Move:
    """`before` is None for a channel's first image, and where what it has is gone.

    `passed_over` are the images that a rollback can't go back to, each with the reason. `allowed`
    are the flags that stand for a yes to what speaks against the image. A promotion has
    `ranks`, where there is one to make.
    """

    verb: Verb
    channel: Channel
    image: ImageFacts
    before: ImageFacts | None
    passed_over: tuple[str, ...] = ()
    allowed: frozenset[str] = frozenset()
    ranks: Ranks | None = None

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
    before = one_of(known, channels[to].image_id)
    needed = channels[to].image_id != image.id
    ranks = read_ranks(cloud, recipe, channels, to) if needed else None
    move = Move(Verb.PROMOTE, channels[to], image, before, allowed=allowed.flags, ranks=ranks)
    found = _against(move, image, now or datetime.now(UTC))
    if ranks is not None:
        found += ranks.against(image.id)
    if objections := [one for one in found if one.flag not in allowed.flags]:
        raise _refused(move, image, objections)
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
    before = one_of(known, current.image_id)
    if reference is not None:
        image = referred_to(recipe, known, channels, reference, cloud.region)
        if image.id not in {entry.image_id for entry in entries}:
            raise UsageError(
                f"{image.name} ({image.id}) has not been in {channel}, as far as its history goes",
                hint=f"`amibuild channels history {channel}` has what was; promote brings new ones",
            )
        move = Move(Verb.ROLLBACK, current, image, before)
        if objections := _against(move, image, moment):
            raise _refused(move, image, objections)
        return move
    back, passed_over = way_back(known, entries, current.image_id, moment)
    if back is not None:
        return Move(Verb.ROLLBACK, current, back, before, passed_over)
    raise PromotionRefused(
        f"there is no image that {channel} could go back to",
        passed_over or ["it has had no other one"],
        hint=f"`amibuild promote IMAGE --to {channel}` brings another",
    )


def way_back(
    known: Sequence[ImageFacts], entries: Sequence[Entry], current: str | None, now: datetime
) -> tuple[ImageFacts | None, tuple[str, ...]]:
    """The last image of a channel's history that it can go back to, and what is passed over on
    the way there, each with the reason."""
    passed_over: list[str] = []
    for image_id in reversed(trail(entries)):
        if image_id == current:
            continue
        found = one_of(known, image_id)
        reasons = [one.text for one in of_image(found, now)] if found else ["it is gone"]
        if found is not None and not reasons:
            return found, tuple(passed_over)
        passed_over.append(f"{found.name if found else image_id}: {'; '.join(reasons)}")
    return None, tuple(passed_over)


def stand_in(
    cloud: Cloud,
    recipe: Recipe,
    channels: Mapping[str, Channel],
    known: Sequence[ImageFacts],
    to: str,
    now: datetime,
) -> tuple[ImageFacts, tuple[str, ...]] | None:
    """Of these the newest that the channel can be promoted to, and the flags that this takes; None
    when each of them has something else against it."""
    ranks = read_ranks(cloud, recipe, channels, to)
    found = []
    for one in known:
        if not of_image(one, now):
            flags = sorted({each.flag for each in ranks.against(one.id)})
            found.append((one, tuple(flags)))
    # Rather one that has not been everywhere than one that was bad somewhere.
    return min(found, key=lambda one: (ROLLED_BACK in one[1], len(one[1])), default=None)


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

    Raises: PromotionRefused when something has come to speak against the image since it was
    shown; ChannelBusy, WaitTimeout, LeftoverError; ResourceFailed when the lock was lost.
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
        held(cloud, scope, journal, id_, move.channel, state_dir, clock) as ours,
    ):
        _look_again(cloud, move)
        ours.renew()
        there = set_channel(cloud, journal, move.channel, move.image.id, note, clock)
    return MoveResult(move, there.version, id_)


def _look_again(cloud: Cloud, move: Move) -> None:
    """Raises: PromotionRefused."""
    try:
        image = image_now(cloud, move.image.id)
    except NotFound:
        raise _refused(move, move.image, [Objection("it is gone")]) from None
    found = _against(move, image, datetime.now(UTC))
    if move.ranks is not None:
        found += move.ranks.now(cloud).against(image.id)
    if objections := [one for one in found if one.flag not in move.allowed]:
        raise _refused(move, image, [replace(one, text=f"by now {one.text}") for one in objections])


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


def _against(move: Move, image: ImageFacts, now: datetime) -> list[Objection]:
    """What speaks against the move; where the channel has the image already, only what no flag
    takes: nothing is changed there, but it must not be called good either."""
    return [one for one in of_image(image, now) if move.needed or not one.flag]


def _refused(move: Move, image: ImageFacts, objections: Sequence[Objection]) -> PromotionRefused:
    channel, one = move.channel.name, f"{image.name} ({image.id})"
    says = {
        Verb.PROMOTE: f"{one} is not promoted to {channel}",
        Verb.ROLLBACK: f"{channel} can't go back to {one}",
    }
    again = "bake again" if move.needed else "promote another to the channel"
    hint = None
    if image.revoked is not None:
        hint = f"a revoked image stays revoked: {again}"
    elif Tag.EXPIRES in image.tags:
        hint = f"no verification makes it stay: {again}"
    takes = move.verb is Verb.PROMOTE
    return PromotionRefused(
        says[move.verb],
        [str(one) if takes else one.text for one in objections],
        flags=[one.flag if takes else "" for one in objections],
        hint=hint,
    )
