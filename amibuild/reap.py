"""Removes what dead bakes left, from their journals and from the tags in the account.

A live bake is never touched: on this machine its process holds a lock on its journal; elsewhere
its things carry a date before which nobody but it may remove them, and which it moves on while it
lives. One report is over all regions: one that can't be looked into does not stop the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from amibuild.aws.removal import CloudRemover
from amibuild.aws.session import Cloud
from amibuild.aws.temporary import find_temporary
from amibuild.bake_keys import forget_keys
from amibuild.dead import Dead, DeadBake, Headless, dead_bakes, unread
from amibuild.errors import AmibuildError, NotFound
from amibuild.journal import (
    KEPT_FOR_LATER,
    Abandoned,
    BakeEnded,
    Created,
    Journal,
    JournalBusy,
    Outcome,
    Remains,
    Removed,
    ResourceKind,
    Subscriber,
    is_live,
)
from amibuild.left_behind import left_behind, leftover
from amibuild.names import BakeId, Tag, began_at, parse_expiry
from amibuild.reaped import UNKNOWN, Elsewhere, Leased, ReapReport, Thing, Unreached
from amibuild.scope import find_intended, may_hide_s
from amibuild.steps.upload import ARTIFACTS, PAYLOADS
from amibuild.wait import Clock, SystemClock, silent

# Machines first: volumes, groups and images are in use until theirs is gone.
ORDER = (
    ResourceKind.INSTANCE,
    ResourceKind.VOLUME,
    ResourceKind.IMAGE,
    ResourceKind.SNAPSHOT,
    ResourceKind.SECURITY_GROUP,
    ResourceKind.OBJECT,
    ResourceKind.LOCK,
)

# More than the longest lease that a recipe can have, which is two weeks.
STALE = timedelta(days=30)


def reap(
    cloud: Cloud,
    state_dir: Path,
    *,
    target: str,
    dry_run: bool,
    kept: bool = False,
    regions: Sequence[str] | None = None,
    bucket: str | None = None,
    subscribers: Sequence[Subscriber] = (),
    now: datetime | None = None,
    clock: Clock | None = None,
) -> ReapReport:
    """`kept` removes also what `--on-error keep` left for a look, before its time is over.

    Without `regions` it is the cloud's own, and each that a journal of this target names. The
    `bucket` is that of the cloud's own.
    """
    moment = now or datetime.now(UTC)
    report, clock = ReapReport(), clock or SystemClock()
    dead, damaged = dead_bakes(state_dir, report)
    account = cloud.account if any(one.started.account for one in dead) else ""
    ours = [one for one in dead if one.started.target == target and one.is_of(account)]
    named = {one.started.region for one in ours}
    named |= {region for one in damaged for region in one.regions}
    report.regions += dict.fromkeys(regions or (cloud.region, *sorted(named)))
    for headless in damaged:
        for region in sorted(headless.regions.difference(report.regions)):
            report.elsewhere.append(Elsewhere(headless.path.stem, UNKNOWN, region))
    for one in dead:
        reachable = one in ours and one.started.region in report.regions
        if not reachable and one.left_something(kept=kept):
            # There its ids mean nothing, and "not found" would be taken for "gone".
            other = "" if one.is_of(account) else one.started.account
            report.elsewhere.append(
                Elsewhere(one.path.stem, one.started.target, one.started.region, other)
            )
    paths = [one.path for one in dead] + [one.path for one in damaged]
    journals = {path.stem: path for path in paths}
    for region in report.regions:
        there = cloud if region == cloud.region else cloud.in_region(region)
        reaper = _Reaper(report, journals, there, clock, dry_run, kept, tuple(subscribers))
        try:
            for one in ours:
                if one.started.region == region:
                    with _by_itself(report, one.path, region):
                        reaper.from_journal(one, moment)
            for headless in damaged:
                if region in headless.regions:
                    with _by_itself(report, headless.path, region):
                        reaper.from_damaged(headless)
            reaper.from_tags(moment)
            if bucket and region == cloud.region:
                reaper.from_bucket(bucket, moment)
        except AmibuildError as error:
            report.unreached.append(Unreached(region, error.message, error.hint))
    return report


@contextmanager
def _by_itself(report: ReapReport, path: Path, region: str) -> Iterator[None]:
    """A journal that this host refuses does not stop the others."""
    try:
        yield
    except OSError as error:
        report.unreached.append(unread(path, error, region))


def _is_stale(bake_id: str, now: datetime) -> bool:
    try:
        return began_at(bake_id) + STALE < now
    except ValueError:  # not a name that we gave
        return False


class _Reaper:
    """Of one region."""

    def __init__(
        self,
        report: ReapReport,
        journals: Mapping[str, Path],
        cloud: Cloud,
        clock: Clock,
        dry_run: bool,
        kept: bool,
        subscribers: tuple[Subscriber, ...],
    ) -> None:
        self._report = report
        self._journals = journals
        self._cloud = cloud
        self._remover = CloudRemover(cloud, clock)
        self._clock = clock
        self._dry_run = dry_run
        self._kept = kept
        self._subscribers = subscribers
        self._for_a_look: set[str] = set()
        self._leasing: set[str] = set()

    def from_journal(self, bake: DeadBake, now: datetime) -> None:
        # By its name: a byte of a line may be damaged.
        remains, bake_id = bake.remains, BakeId(bake.path.stem)
        self._for_a_look |= {
            id_ for id_, kept in remains.kept.items() if kept.why in KEPT_FOR_LATER
        }
        if not bake.left_something(kept=self._kept):
            return
        if self._dry_run:
            todo = self._unproven(bake.known(kept=self._kept))
            todo += self._intended(remains, bake_id, None)
            self._report.would_remove += map(self._thing, todo)
            return
        try:
            journal = Journal(bake.path, self._subscribers)
        except JournalBusy:
            self._report.busy.append(bake.path.stem)
            return
        with journal:
            # Again: somebody may have gone on with it, and ended, while others were reaped.
            bake = replace(bake, remains=Remains(bake.path))
            remains = bake.remains
            todo = self._unproven(bake.known(kept=self._kept))
            todo += self._intended(remains, bake_id, journal)
            for dead in sorted(todo, key=lambda one: ORDER.index(one.kind)):
                self._remove(dead, journal)
            forget_keys(bake.path.parents[1], bake_id)
            if remains.ended is None:
                spent = max((now - bake.started.at).total_seconds(), 0.0)
                journal.tell(BakeEnded(outcome=Outcome.INTERRUPTED, seconds=round(spent, 3)))

    def from_damaged(self, bake: Headless) -> None:
        """Only what carries the bake's tags is here.

        The rest may be in another target, where "not found" here says nothing.
        """
        path, remains, region = bake.path, bake.remains, self._cloud.region
        bake_id = BakeId(path.stem)
        here: list[Dead] = []
        elsewhere = Elsewhere(path.stem, UNKNOWN, region)
        for id_, created in remains.resources.items():
            if created.region != region:
                continue
            why = remains.kept.get(id_)
            if why is not None and not (self._kept and why.why in KEPT_FOR_LATER):
                continue
            dead = Dead(created.kind, id_, created.token, created.at)
            try:
                found = self._remover.find(dead.kind, bake_id, dead.token, dead.id)
            except AmibuildError as error:
                self._leave(dead, error, None)
                continue
            if dead.id in found:
                here += self._unproven([dead])
            elif elsewhere not in self._report.elsewhere:
                self._report.elsewhere.append(elsewhere)
        here += self._intended(remains, bake_id, None)
        if self._dry_run:
            self._report.would_remove += map(self._thing, here)
            return
        try:
            journal = Journal(path, self._subscribers)
        except JournalBusy:
            self._report.busy.append(path.stem)
            return
        with journal:
            for dead in sorted(here, key=lambda one: ORDER.index(one.kind)):
                self._remove(dead, journal)

    def from_tags(self, now: datetime) -> None:
        """What carries our tags and is past its date, whoever's journal knows it."""
        done = {*self._report.removed, *self._report.would_remove}
        told = {(one.id, one.region) for one in self._report.left}
        others = {*self._report.live, *self._report.busy}
        for one in find_temporary(self._cloud):
            dead = Dead(one.kind, one.id, one.tags.get(Tag.TOKEN, ""))
            thing = self._thing(dead)
            if thing in done or one.tags[Tag.BAKE_ID] in others:
                continue
            if (dead.id, thing.region) in told:
                continue  # not twice: it could not be removed a moment ago
            try:
                expires = parse_expiry(one.tags[Tag.EXPIRES])
            except ValueError:
                continue  # not a date that we wrote: not ours to remove
            if expires > now:
                self._leasing.add(one.tags[Tag.BAKE_ID])
                if dead.id in self._for_a_look:
                    self._report.kept.append(thing)
                else:
                    self._report.leased.append(Leased(thing, one.tags[Tag.BAKE_ID], expires))
                continue
            if self._is_alive(one.tags[Tag.BAKE_ID]) or self._is_proven(dead):
                continue  # since they were listed
            if self._dry_run:
                self._report.would_remove.append(thing)
            else:
                self._remove(dead, None)

    def from_bucket(self, bucket: str, now: datetime) -> None:
        """What bakes without a journal here have put there: objects have no end by a tag, so it is
        after a while that nothing else of the bake is there whose end is still to come."""
        others = {*self._report.live, *self._report.busy, *self._leasing}
        seen = {*self._report.removed, *self._report.would_remove}
        told = {one.id for one in self._report.left}
        with suppress(NotFound):  # a bucket that nobody has made yet
            keys = [
                key for at in (PAYLOADS, ARTIFACTS) for key in self._cloud.s3.keys_below(bucket, at)
            ]
            for key in sorted(keys):
                bake_id = key.split("/")[2]
                dead = Dead(ResourceKind.OBJECT, f"s3://{bucket}/{key}", "")
                thing = self._thing(dead)
                if not _is_stale(bake_id, now) or thing in seen or dead.id in told:
                    continue
                if bake_id in others or self._is_alive(bake_id):
                    continue
                if self._dry_run:
                    self._report.would_remove.append(thing)
                else:
                    self._remove(dead, None)

    def _is_alive(self, bake_id: str) -> bool:
        """Again: one that was dead at first may have been resumed while others were reaped."""
        path = self._journals.get(bake_id)
        if path is None or not path.exists() or not is_live(path):
            return False
        if bake_id not in self._report.live:
            self._report.live.append(bake_id)
        return True

    def _unproven(self, known: Sequence[Dead]) -> list[Dead]:
        """Without the results among them. One that can't be looked at is left, and told."""
        doomed = []
        for dead in known:
            try:
                doomed += [] if self._is_proven(dead) else [dead]
            except AmibuildError as error:
                self._leave(dead, error, None)
        return doomed

    def _is_proven(self, dead: Dead) -> bool:
        """A result whose bake died before it noted that. Somebody may use it."""
        if dead.kind is not ResourceKind.IMAGE:
            return False
        try:
            tags = self._cloud.images.image(dead.id).tags
        except NotFound:
            return False
        return tags.get(Tag.VERIFIED) == "passed" and Tag.EXPIRES not in tags

    def _thing(self, dead: Dead) -> Thing:
        return Thing(dead.kind, dead.id, self._cloud.region)

    def _intended(self, remains: Remains, bake_id: BakeId, journal: Journal | None) -> list[Dead]:
        """What intents without an id came to, by their tokens. EC2 may still hide what a bake that
        was killed a moment ago has asked for."""
        observer = journal.show if journal else silent
        found = []
        for token, intent in remains.intents.items():
            if intent.region != self._cloud.region:
                continue
            try:
                ids = find_intended(self._remover, bake_id, intent, self._clock, observer)
            except AmibuildError as error:
                # One bucket that is gone must not keep the rest from going.
                self._leave(Dead(intent.kind, intent.name, token), error, None)
                continue
            found += [Dead(intent.kind, id_, token, intent.at) for id_ in ids]
            if journal is None:
                continue
            for id_ in ids:
                journal.tell(
                    Created(kind=intent.kind, id=id_, token=token, region=self._cloud.region)
                )
            if not ids:
                journal.tell(Abandoned(token=token))
        return found

    def _remove(self, dead: Dead, journal: Journal | None) -> None:
        observer = journal.show if journal else silent
        hidden_s = may_hide_s(dead.made, self._clock) if dead.made else 0.0
        try:
            self._remover.remove(dead.kind, dead.id, dead.token, observer, hidden_s)
        except AmibuildError as error:
            self._leave(dead, error, journal)
            return
        if journal:
            journal.tell(Removed(kind=dead.kind, id=dead.id, region=self._cloud.region))
        self._report.removed.append(self._thing(dead))

    def _leave(self, dead: Dead, error: AmibuildError, journal: Journal | None) -> None:
        command = self._remover.command(dead.kind, dead.id)
        for event in left_behind(error, dead.kind, dead.id, self._cloud.region, command):
            if journal:
                journal.tell(event)
            self._report.left.append(leftover(event))
