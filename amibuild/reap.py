"""Removes what dead bakes left, from their journals and from the tags in the account.

A live bake is never touched: on this machine its process holds a lock on its journal; elsewhere
its things carry a date before which nobody but it may remove them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from amibuild.aws.removal import CloudRemover
from amibuild.aws.session import Cloud
from amibuild.errors import AmibuildError, Leftover
from amibuild.journal import (
    KEPT_FOR_A_LOOK,
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
    left_behind,
    leftover,
)
from amibuild.names import BakeId, Tag
from amibuild.wait import Clock, silent

# Machines first: volumes, groups and images are in use until theirs is gone.
ORDER = (
    ResourceKind.INSTANCE,
    ResourceKind.VOLUME,
    ResourceKind.IMAGE,
    ResourceKind.SNAPSHOT,
    ResourceKind.SECURITY_GROUP,
    ResourceKind.OBJECT,
)


@dataclass(frozen=True)
class Elsewhere:
    """A dead bake that left something in another target or region."""

    bake_id: str
    target: str
    region: str


@dataclass
class ReapReport:
    """What went, what would go (`dry_run`), what could not; the live bakes left alone, those of
    another target or region, which only a call for that one can clean, and what was `kept` for a
    look and is still there."""

    removed: list[tuple[str, str]] = field(default_factory=list)
    would_remove: list[tuple[str, str]] = field(default_factory=list)
    left: list[Leftover] = field(default_factory=list)
    live: list[str] = field(default_factory=list)
    elsewhere: list[Elsewhere] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Dead:
    """One thing to remove, and the token of the call that made it."""

    kind: ResourceKind
    id: str
    token: str


def reap(
    cloud: Cloud,
    state_dir: Path,
    *,
    target: str,
    dry_run: bool,
    kept: bool = False,
    subscribers: Sequence[Subscriber] = (),
    now: datetime | None = None,
    clock: Clock | None = None,
) -> ReapReport:
    """`kept` removes also what `--on-error keep` left for a look, before its time is over."""
    reaper = _Reaper(cloud, CloudRemover(cloud, clock), dry_run, kept, tuple(subscribers))
    moment = now or datetime.now(UTC)
    for path in sorted((state_dir / "journals").glob("*.jsonl")):
        if is_live(path):
            reaper.report.live.append(path.stem)
        else:
            reaper.from_journal(path, target, moment)
    reaper.from_tags(moment)
    return reaper.report


class _Reaper:
    def __init__(
        self,
        cloud: Cloud,
        remover: CloudRemover,
        dry_run: bool,
        kept: bool,
        subscribers: tuple[Subscriber, ...],
    ) -> None:
        self.report = ReapReport()
        self._cloud = cloud
        self._remover = remover
        self._dry_run = dry_run
        self._kept = kept
        self._subscribers = subscribers
        self._for_a_look: set[str] = set()

    def from_journal(self, path: Path, target: str, now: datetime) -> None:
        remains = Remains(path)
        started = remains.started
        # What is kept is the result, or was left for a look: then its tags say until when.
        spared = {
            id_
            for id_, kept in remains.kept.items()
            if not (self._kept and kept.why == KEPT_FOR_A_LOOK)
        }
        self._for_a_look |= {
            id_ for id_, kept in remains.kept.items() if kept.why == KEPT_FOR_A_LOOK
        }
        todo = [
            _Dead(created.kind, id_, created.token)
            for id_, created in remains.resources.items()
            if id_ not in spared
        ]
        if started is None or not (todo or remains.intents):
            return
        if (started.target, started.region) != (target, self._cloud.region):
            # There its ids mean nothing, and "not found" would be taken for "gone".
            self.report.elsewhere.append(Elsewhere(path.stem, started.target, started.region))
            return
        if self._dry_run:
            todo += self._intended(remains, BakeId(started.bake_id), None)
            self.report.would_remove += [(dead.kind, dead.id) for dead in todo]
            return
        try:
            journal = Journal(path, self._subscribers)
        except JournalBusy:
            self.report.live.append(path.stem)
            return
        with journal:
            todo += self._intended(remains, BakeId(started.bake_id), journal)
            for dead in sorted(todo, key=lambda one: ORDER.index(one.kind)):
                self._remove(dead, journal)
            if remains.ended is None:
                spent = max((now - started.at).total_seconds(), 0.0)
                journal.write(BakeEnded(outcome=Outcome.INTERRUPTED, seconds=round(spent, 3)))

    def from_tags(self, now: datetime) -> None:
        """What carries our tags and is past its date, whoever's journal knows it."""
        done = {id_ for _, id_ in (*self.report.removed, *self.report.would_remove)}
        for dead, tags in self._temporary():
            if dead.id in done or tags.get(Tag.BAKE_ID) in self.report.live:
                continue
            try:
                expires = datetime.fromisoformat(tags[Tag.EXPIRES].replace("Z", "+00:00"))
            except ValueError:
                continue  # not a date that we wrote: not ours to remove
            if expires > now:
                if dead.id in self._for_a_look:
                    self.report.kept.append((dead.kind, dead.id))
                continue
            if self._dry_run:
                self.report.would_remove.append((dead.kind, dead.id))
            else:
                self._remove(dead, None)

    def _intended(self, remains: Remains, bake_id: BakeId, journal: Journal | None) -> list[_Dead]:
        """What intents without an id came to, by their tokens."""
        found = []
        for token, intent in remains.intents.items():
            try:
                ids = self._remover.find(intent.kind, bake_id, token, intent.name)
            except AmibuildError as error:
                # One bucket that is gone must not keep the rest from going.
                self._leave(_Dead(intent.kind, intent.name, token), error, None)
                continue
            found += [_Dead(intent.kind, id_, token) for id_ in ids]
            if journal is None:
                continue
            for id_ in ids:
                journal.write(
                    Created(kind=intent.kind, id=id_, token=token, region=self._cloud.region)
                )
            if not ids:
                journal.write(Abandoned(token=token))
        return found

    def _remove(self, dead: _Dead, journal: Journal | None) -> None:
        observer = journal.show if journal else silent
        try:
            self._remover.remove(dead.kind, dead.id, dead.token, observer)
        except AmibuildError as error:
            self._leave(dead, error, journal)
            return
        if journal:
            journal.write(Removed(kind=dead.kind, id=dead.id, region=self._cloud.region))
        self.report.removed.append((dead.kind, dead.id))

    def _leave(self, dead: _Dead, error: AmibuildError, journal: Journal | None) -> None:
        command = self._remover.command(dead.kind, dead.id)
        for event in left_behind(error, dead.kind, dead.id, self._cloud.region, command):
            if journal:
                journal.write(event)
            self.report.left.append(leftover(event))

    def _temporary(self) -> list[tuple[_Dead, Mapping[str, str]]]:
        """All that has an end by its tags. A verified image, or its snapshot, has none."""
        ec2, images = self._cloud.ec2, self._cloud.images
        unproven = images.search(owners=["self"], filters={"tag-key": [Tag.EXPIRES]})
        found: dict[ResourceKind, Mapping[str, Mapping[str, str]]] = {
            ResourceKind.INSTANCE: ec2.instances_with(Tag.EXPIRES),
            ResourceKind.VOLUME: ec2.volumes_with(Tag.EXPIRES),
            ResourceKind.IMAGE: {image.id: image.tags for image in unproven},
            ResourceKind.SNAPSHOT: images.snapshots_with(Tag.EXPIRES),
            ResourceKind.SECURITY_GROUP: ec2.security_groups_with(Tag.EXPIRES),
        }
        return [
            (_Dead(kind, id_, tags.get(Tag.TOKEN, "")), tags)
            for kind, things in found.items()
            for id_, tags in things.items()
            if tags.get(Tag.VERIFIED) != "passed"
        ]
