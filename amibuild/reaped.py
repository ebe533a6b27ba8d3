"""What `reap` found and did, over all regions: see amibuild/reap.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from amibuild.errors import Leftover
from amibuild.journal import ResourceKind


@dataclass(frozen=True, order=True)
class Thing:
    """Something of a bake's, and the region that it is in."""

    kind: ResourceKind
    id: str
    region: str


@dataclass(frozen=True)
class Unreached:
    """A region that could not be looked into, to its end at least; or a `journal`, whose region is
    "" when it could not even be read."""

    region: str
    reason: str
    hint: str | None
    journal: str = ""


# Of a bake whose journal is damaged where it says so.
UNKNOWN = "another target"


@dataclass(frozen=True)
class Elsewhere:
    """A dead bake that left something in another target, region or account, where one is named."""

    bake_id: str
    target: str
    region: str
    account: str = ""


@dataclass(frozen=True)
class Leased:
    """What a bake has that may live, as far as the journals here go, and until when."""

    thing: Thing
    bake_id: str
    until: datetime


@dataclass
class ReapReport:
    """What went, what would go (`dry_run`), what could not; the live bakes left alone, those whose
    journal another process has since (`busy`), those of another target or region, which only a call
    for that one can clean, what was `kept` for a look and is still there, and what is `leased`.
    `regions` are those that were asked for, `unreached` among them."""

    regions: list[str] = field(default_factory=list)
    removed: list[Thing] = field(default_factory=list)
    would_remove: list[Thing] = field(default_factory=list)
    left: list[Leftover] = field(default_factory=list)
    live: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    elsewhere: list[Elsewhere] = field(default_factory=list)
    kept: list[Thing] = field(default_factory=list)
    leased: list[Leased] = field(default_factory=list)
    unreached: list[Unreached] = field(default_factory=list)
