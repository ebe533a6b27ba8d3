"""Removes images of a recipe that are old and that nothing uses, each with its snapshots.

In two parts, so that somebody can say yes between them: `plan_prune` looks, `carry_out` looks
again at each image right before it goes, since it may have been promoted or started meanwhile. It
has the locks of all channels then, so that none is moved between that look and the removal.
What is not seen from here: see "Old images" in README.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from amibuild import __version__, signals
from amibuild.aws.images import Reference
from amibuild.aws.removal import CloudRemover
from amibuild.aws.session import Cloud
from amibuild.channel_lines import Pruning
from amibuild.channels import parameter_of, read_channels, read_history
from amibuild.errors import AmibuildError, Interrupted, Leftover
from amibuild.journal import (
    BakeStarted,
    Journal,
    Removed,
    ResourceKind,
    Subscriber,
    journal_path,
)
from amibuild.left_behind import left_behind, leftover
from amibuild.names import Tag, new_bake_id
from amibuild.promote import way_back
from amibuild.recipe.model import Recipe
from amibuild.registry import ImageFacts, list_images
from amibuild.retention import Rule, Verdict, choose
from amibuild.scope import Scope
from amibuild.stage import Stages, told
from amibuild.steps.channel import locked
from amibuild.steps.lock import HeldLock, Overtaken
from amibuild.wait import Clock

# Longer than a move can take.
BUSY_S = 120.0


@dataclass(frozen=True)
class PrunePlan:
    """`orphans` are snapshots whose image went without them: a removal that ended halfway."""

    region: str
    rule: Rule
    verdicts: tuple[Verdict, ...]
    orphans: tuple[str, ...]

    @property
    def going(self) -> tuple[Verdict, ...]:
        return tuple(one for one in self.verdicts if one.goes)

    @property
    def needed(self) -> bool:
        return bool(self.going or self.orphans)


@dataclass
class PruneReport:
    """What went; what was `spared`, since something began to use it; what could not go.

    `id` names the journal; None when nothing had to go.
    """

    id: str | None = None
    removed: list[Verdict] = field(default_factory=list)
    snapshots: list[str] = field(default_factory=list)
    spared: list[Verdict] = field(default_factory=list)
    left: list[Leftover] = field(default_factory=list)


def plan_prune(
    cloud: Cloud, recipe: Recipe, rule: Rule, *, now: datetime | None = None
) -> PrunePlan:
    """In the cloud's region. Only what the rule would let go is asked about."""
    moment = now or datetime.now(UTC)
    images = list_images(cloud, recipe.image.name)
    old = [one.image.id for one in choose(images, {}, rule, moment) if one.goes]
    uses = used_by(cloud, recipe, images, old, moment)
    verdicts = choose(images, uses, rule, moment)
    return PrunePlan(cloud.region, rule, verdicts, _orphans(cloud, recipe, rule, moment))


def used_by(
    cloud: Cloud,
    recipe: Recipe,
    images: Sequence[ImageFacts],
    ids: Sequence[str],
    now: datetime,
) -> dict[str, list[str]]:
    """By image id, what uses each of these: all that names them, and channels by a read of their
    own, the last of all, since one that was promoted a moment ago must not be missed."""
    if not ids:
        return {}
    uses: dict[str, list[str]] = {id_: [] for id_ in ids}
    references = cloud.images.references(ids)
    parameters = [parameter_of(recipe, channel) for channel in recipe.channels.order]
    histories = {name: read_history(cloud, name) for name in parameters}
    channels = read_channels(cloud, recipe).values()
    for channel in channels:
        if channel.image_id in uses:
            uses[channel.image_id].append(f"the channel {channel.name} has it")
        # Where `amibuild rollback` would go.
        back, _ = way_back(images, histories[channel.parameter], channel.image_id, now)
        if back is not None and back.id in uses:
            uses[back.id].append(f"the channel {channel.name} would go back to it")
    told_already = {(one.image_id, one.parameter.lstrip("/")) for one in channels}
    for reference in references:
        if (reference.image_id, _name(reference).lstrip("/")) not in told_already:
            uses[reference.image_id].append(f"{_kind(reference)} {_name(reference)} uses it")
    return uses


def _kind(reference: Reference) -> str:
    kinds = {
        "ec2:Instance": "instance",
        "ec2:LaunchTemplate": "launch template",
        "ssm:Parameter": "parameter",
    }
    return kinds.get(reference.kind, reference.kind)


def _name(reference: Reference) -> str:
    """`i-0abc`, or a parameter's name. Its ARN has one path with a first slash and without."""
    name = reference.arn.split(":", 5)[-1].partition("/")[2]
    return f"/{name}" if reference.kind == "ssm:Parameter" and "/" in name else name


def _orphans(cloud: Cloud, recipe: Recipe, rule: Rule, now: datetime) -> tuple[str, ...]:
    """Old enough, or the image that a copy is about to make does not name it yet."""
    oldest = now - timedelta(days=rule.days)
    ours = [
        one.id
        for one in cloud.images.snapshots_like({Tag.IMAGE: recipe.image.name})
        if Tag.VERSION in one.tags and Tag.EXPIRES not in one.tags and one.started <= oldest
    ]
    return tuple(cloud.images.without_image(ours))


def carry_out(
    cloud: Cloud,
    recipe: Recipe,
    path: Path,
    plan: PrunePlan,
    *,
    target: str,
    subscribers: Sequence[Subscriber],
    clock: Clock | None = None,
) -> PruneReport:
    """One image after the other; one that can't go does not hold up the rest.

    Without anything to do no call is made, and no journal. Raises: ChannelBusy when a channel is
    being moved all the time; AwsError, when it can't be seen any longer what uses an image, or
    ResourceFailed when a lock is lost: then that one stays, and all that come after it.
    """
    while plan.needed:
        try:
            return _carry_out(cloud, recipe, path, plan, target, subscribers, clock)
        except Overtaken:  # whoever that was: their lock is seen now
            continue
    return PruneReport()


def _carry_out(
    cloud: Cloud,
    recipe: Recipe,
    path: Path,
    plan: PrunePlan,
    target: str,
    subscribers: Sequence[Subscriber],
    clock: Clock | None,
) -> PruneReport:
    """Raises: Overtaken."""
    id_, state_dir = new_bake_id(), path.parent / ".amibuild"
    report = PruneReport(id_)
    begin = BakeStarted(
        bake_id=id_,
        image=recipe.image.name,
        digest="",
        target=target,
        region=cloud.region,
        account=cloud.account,
        source_ami="",
        recipe=str(path),
        pid=os.getpid(),
        version=__version__,
        flow="prune",
    )
    what = f"{len(plan.going)} images, {len(plan.orphans)} snapshots without one"
    with (
        Journal(journal_path(state_dir, id_), tuple(subscribers)) as journal,
        told(journal, stages := Stages(journal, clock), begin),
        stages.run("prune", what),
        _telling(report),
    ):
        pruner = _Pruner(cloud, CloudRemover(cloud, clock), journal, report)
        if plan.going:
            with (
                Scope(
                    journal, pruner.remover, bake_id=id_, region=cloud.region, clock=clock
                ) as scope,
                ExitStack() as ending,
            ):
                locks = [
                    ending.enter_context(
                        locked(cloud, scope, journal, id_, one, state_dir, clock, timeout_s=BUSY_S)
                    )
                    for one in read_channels(cloud, recipe).values()
                ]
                _remove_images(cloud, recipe, plan, pruner, locks)
        for snapshot in plan.orphans:
            signals.deliver_now()
            if pruner.remove(ResourceKind.SNAPSHOT, snapshot):
                report.snapshots.append(snapshot)
    return report


@contextmanager
def _telling(report: PruneReport) -> Iterator[None]:
    """An error in the middle takes along what could not be removed before it."""
    try:
        yield
    except (AmibuildError, Interrupted) as error:
        error.leftovers = (*error.leftovers, *report.left)
        raise


def _remove_images(
    cloud: Cloud, recipe: Recipe, plan: PrunePlan, pruner: _Pruner, locks: Sequence[HeldLock]
) -> None:
    # By now: what was taken back since the plan is no way back any longer.
    images = list_images(cloud, recipe.image.name)
    for verdict in plan.going:
        signals.deliver_now()
        going = verdict.image.id
        uses = used_by(cloud, recipe, images, [going], datetime.now(UTC))[going]
        for one in locks:
            one.renew()
        if uses:
            pruner.report.spared.append(Verdict(verdict.image, tuple(uses)))
        elif pruner.remove_image(verdict):
            pruner.report.removed.append(verdict)


@dataclass(frozen=True)
class _Pruner:
    cloud: Cloud
    remover: CloudRemover
    journal: Journal
    report: PruneReport

    def remove_image(self, verdict: Verdict) -> bool:
        image = verdict.image
        self.journal.write(
            Pruning(
                image=image.id,
                name=image.name,
                region=self.cloud.region,
                snapshots=image.snapshot_ids,
                why=verdict.why,
            )
        )
        return self.remove(ResourceKind.IMAGE, image.id)

    def remove(self, kind: ResourceKind, id_: str) -> bool:
        """Without the token of the call that made it: a copy has the tags of what it is of, and
        that one's snapshots must stay."""
        try:
            self.remover.remove(kind, id_, "", self.journal.show)
        except AmibuildError as error:
            command = self.remover.command(kind, id_)
            for event in left_behind(error, kind, id_, self.cloud.region, command):
                self.journal.tell(event)
                self.report.left.append(leftover(event))
            return False
        self.journal.tell(Removed(kind=kind, id=id_, region=self.cloud.region))
        return True
