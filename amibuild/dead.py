"""The journals of bakes that are dead, and what each says is there still: see amibuild/reap.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from amibuild.journal import KEPT_FOR_LATER, BakeStarted, Remains, ResourceKind, is_live
from amibuild.reaped import ReapReport, Unreached


@dataclass(frozen=True)
class Dead:
    """One thing to remove, the token of the call that made it and, where a journal says so, when:
    for a while "not found" does not mean that it is gone."""

    kind: ResourceKind
    id: str
    token: str
    made: datetime | None = None


def unread(path: Path, error: OSError, region: str = "") -> Unreached:
    """A journal that this host can't read or write."""
    return Unreached(region, error.strerror or str(error), None, str(path))


def dead_bakes(state_dir: Path, report: ReapReport) -> tuple[list[DeadBake], list[Headless]]:
    """Those whose journal says where they were, and the journals that are damaged there."""
    found, damaged = list[DeadBake](), list[Headless]()
    for path in sorted((state_dir / "journals").glob("*.jsonl")):
        try:
            if is_live(path):
                report.live.append(path.stem)
                continue
            remains = Remains(path)
        except OSError as error:  # a folder of that name, or one that may not be read
            report.unreached.append(unread(path, error))
            continue
        headless = Headless(path, remains)
        if remains.started is not None and headless.regions <= {remains.started.region}:
            found.append(DeadBake(path, remains, remains.started))
        elif headless.regions:
            damaged.append(headless)
    return found, damaged


@dataclass(frozen=True)
class Headless:
    """A journal whose line is damaged that tells the target, or one of those that tell the region:
    all that a bake makes is in one."""

    path: Path
    remains: Remains

    @property
    def regions(self) -> set[str]:
        made = {one.region for one in self.remains.resources.values()}
        return made | {one.region for one in self.remains.intents.values()}


@dataclass(frozen=True)
class DeadBake:
    path: Path
    remains: Remains
    started: BakeStarted

    def is_of(self, account: str) -> bool:
        """False only where both are known."""
        return not (account and self.started.account) or account == self.started.account

    def known(self, *, kept: bool) -> list[Dead]:
        """What has an id and shall go. What is kept is the result, or was left for a look: then
        its tags say until when."""
        spared = {
            id_
            for id_, why in self.remains.kept.items()
            if not (kept and why.why in KEPT_FOR_LATER)
        }
        return [
            Dead(created.kind, id_, created.token, created.at)
            for id_, created in self.remains.resources.items()
            if id_ not in spared
        ]

    def left_something(self, *, kept: bool) -> bool:
        return bool(self.known(kept=kept) or self.remains.intents)
