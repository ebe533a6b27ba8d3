"""Removes what dead bakes left, from their journals and from the tags in the account.

A live bake is never touched: on this machine its process holds a lock on its journal; elsewhere
its things carry a date before which nobody but it may remove them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from amibuild.aws.removal import CloudRemover
from amibuild.aws.session import Cloud
from amibuild.errors import AmibuildError, Leftover
from amibuild.journal import (
    Abandoned,
    BakeEnded,
    Created,
    Journal,
    JournalBusy,
    LeftBehind,
    Outcome,
    Remains,
    Removed,
    ResourceKind,
    Subscriber,
    is_live,
    leftover,
)
from amibuild.names import BakeId, Tag
from amibuild.wait import Clock

# Machines first: volumes, groups and images are in use until theirs is gone.
ORDER = (
    ResourceKind.INSTANCE,
    ResourceKind.VOLUME,
    ResourceKind.IMAGE,
    ResourceKind.SNAPSHOT,
    ResourceKind.SECURITY_GROUP,
    ResourceKind.OBJECT,
)


@dataclass
class ReapReport:
    """What went, what would go (`dry_run`), what could not, and the live bakes left alone."""

    removed: list[tuple[str, str]] = field(default_factory=list)
    would_remove: list[tuple[str, str]] = field(default_factory=list)
    left: list[Leftover] = field(default_factory=list)
    live: list[str] = field(default_factory=list)


def reap(
    cloud: Cloud,
    state_dir: Path,
    *,
    dry_run: bool,
    subscribers: Sequence[Subscriber] = (),
    now: datetime | None = None,
    clock: Clock | None = None,
) -> ReapReport:
    remover = CloudRemover(cloud, clock)
    report = ReapReport()
    moment = now or datetime.now(UTC)
    for path in sorted((state_dir / "journals").glob("*.jsonl")):
        if is_live(path):
            report.live.append(path.stem)
            continue
        _from_journal(cloud, remover, path, report, dry_run, tuple(subscribers), moment)
    _from_tags(cloud, remover, report, dry_run, moment)
    return report


def _from_journal(
    cloud: Cloud,
    remover: CloudRemover,
    path: Path,
    report: ReapReport,
    dry_run: bool,
    subscribers: tuple[Subscriber, ...],
    now: datetime,
) -> None:
    remains = Remains(path)
    started = remains.started
    if started is None or started.region != cloud.region:
        return
    # What is kept is the result, or was left for a look by `--on-error keep`: then its tags say
    # until when, and `_from_tags` goes by those.
    todo = [
        (created.kind, id_, created.token)
        for id_, created in remains.resources.items()
        if id_ not in remains.kept
    ]
    if dry_run:
        report.would_remove += [(kind, id_) for kind, id_, _ in todo]
        for intent in remains.intents.values():
            found = remover.find(intent.kind, BakeId(started.bake_id), intent.token, intent.name)
            report.would_remove += [(intent.kind, id_) for id_ in found]
        return
    if not todo and not remains.intents:
        return
    try:
        journal = Journal(path, subscribers)
    except JournalBusy:
        report.live.append(path.stem)
        return
    with journal:
        for token, intent in remains.intents.items():
            found = remover.find(intent.kind, BakeId(started.bake_id), token, intent.name)
            for id_ in found:
                journal.write(Created(kind=intent.kind, id=id_, token=token, region=cloud.region))
                todo.append((intent.kind, id_, token))
            if not found:
                journal.write(Abandoned(token=token))
        for kind, id_, _ in sorted(todo, key=lambda one: ORDER.index(one[0])):
            _remove(cloud, remover, journal, kind, id_, report)
        if remains.ended is None:
            spent = max((now - started.at).total_seconds(), 0.0)
            journal.write(BakeEnded(outcome=Outcome.INTERRUPTED, seconds=round(spent, 3)))


def _remove(
    cloud: Cloud,
    remover: CloudRemover,
    journal: Journal | None,
    kind: ResourceKind,
    id_: str,
    report: ReapReport,
) -> None:
    try:
        remover.remove(kind, id_, journal.show if journal else lambda _: None)
    except AmibuildError as error:
        event = LeftBehind(
            kind=kind,
            id=id_,
            region=cloud.region,
            reason=error.message,
            command=remover.command(kind, id_),
        )
        if journal:
            journal.write(event)
        report.left.append(leftover(event))
        return
    if journal:
        journal.write(Removed(kind=kind, id=id_, region=cloud.region))
    report.removed.append((kind, id_))


def _from_tags(
    cloud: Cloud, remover: CloudRemover, report: ReapReport, dry_run: bool, now: datetime
) -> None:
    """What carries our tags and is past its date, whoever's journal knows it."""
    known = {id_ for _, id_ in report.removed} | {id_ for _, id_ in report.would_remove}
    for kind, id_, expires in _expiring(cloud):
        if id_ in known or expires > now:
            continue
        if dry_run:
            report.would_remove.append((kind, id_))
        else:
            _remove(cloud, remover, None, kind, id_, report)


def _expiring(cloud: Cloud) -> list[tuple[ResourceKind, str, datetime]]:
    """Temporary things with their date; an image counts as one until it is verified."""
    found: dict[ResourceKind, dict[str, str]] = {
        ResourceKind.INSTANCE: cloud.ec2.instances_with(Tag.EXPIRES),
        ResourceKind.VOLUME: cloud.ec2.volumes_with(Tag.EXPIRES),
        ResourceKind.SECURITY_GROUP: cloud.ec2.security_groups_with(Tag.EXPIRES),
        ResourceKind.IMAGE: {
            image.id: image.tags[Tag.EXPIRES]
            for image in cloud.images.search(owners=["self"], filters={"tag-key": [Tag.EXPIRES]})
            if image.tags.get(Tag.VERIFIED) != "passed"
        },
    }
    dated = []
    for kind, ids in found.items():
        for id_, text in ids.items():
            try:
                dated.append((kind, id_, datetime.fromisoformat(text.replace("Z", "+00:00"))))
            except ValueError:
                continue  # not a date that we wrote: not ours to remove
    return dated
