"""Running and past bakes, as their journals tell them, and one that runs, as it goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from amibuild.journal import (
    KEPT_FOR_LATER,
    BakeEnded,
    BakeStarted,
    Event,
    Outcome,
    Remains,
    ResourceKind,
    StepEnded,
    StepFailed,
    StepStarted,
    is_live,
    read,
)
from amibuild.wait import Clock, Look, until

# Whoever follows a bake wants to see what is new.
LOOK_AGAIN_S = 0.3


class State(StrEnum):
    """How a bake ended; or that it runs, or is dead: without an end, and its process is gone."""

    RUNNING = "running"
    DONE = Outcome.DONE.value
    FAILED = Outcome.FAILED.value
    INTERRUPTED = Outcome.INTERRUPTED.value
    KEPT = Outcome.KEPT.value
    DEAD = "dead"


@dataclass(frozen=True)
class BakeFacts:
    """`flow` is what it was: a bake, or what else has a journal. `step` is the current one, or the
    last; `left` is what its journal says is there and no result, as (kind, id)."""

    id: str
    flow: str
    image: str
    target: str
    region: str
    state: State
    began: datetime | None
    seconds: float
    step: str
    left: tuple[tuple[ResourceKind, str], ...]


def bakes(state_dir: Path, now: datetime | None = None) -> Iterator[BakeFacts]:
    """The newest first."""
    for path in sorted((state_dir / "journals").glob("*.jsonl"), reverse=True):
        yield facts_of(path, now)


def facts_of(path: Path, now: datetime | None = None) -> BakeFacts:
    live = is_live(path)  # before it is read: what ends meanwhile is told as it was
    events = list(read(path))
    remains = Remains(path)
    started, ended = remains.started, remains.ended
    if ended is not None:
        state, seconds = State(ended.outcome.value), ended.seconds
    else:
        state = State.RUNNING if live else State.DEAD
        last = (now or datetime.now(UTC)) if live else (events[-1].at if events else None)
        # Of this run: the time since an earlier one counts for nothing.
        seconds = (last - started.at).total_seconds() if started and last else 0.0
    steps = [event.step for event in events if isinstance(event, StepStarted)]
    return BakeFacts(
        id=path.stem,
        flow=_flow(started, steps),
        image=started.image if started else "",
        target=started.target if started else "",
        region=started.region if started else "",
        state=state,
        began=next((e.at for e in events if isinstance(e, BakeStarted)), None),
        seconds=round(seconds, 3),
        step=steps[-1] if steps else "",
        left=tuple(
            (one.kind, id_)
            for id_, one in remains.resources.items()
            if one.kind is not ResourceKind.LOCK  # each has one, and it costs nothing
            and (id_ not in remains.kept or remains.kept[id_].why in KEPT_FOR_LATER)
        ),
    )


def _flow(started: BakeStarted | None, steps: list[str]) -> str:
    """A verification begins as a bake does, but its one stretch has its name."""
    if started is not None and started.flow != "bake":
        return started.flow
    return "bake" if not steps or steps[0] == "preflight" else steps[0]


def running_step(events: list[Event]) -> str | None:
    """The step that has begun and not ended."""
    for event in reversed(events):
        if isinstance(event, StepStarted):
            return event.step
        if isinstance(event, StepEnded | StepFailed | BakeEnded):
            return None
    return None


def followed(path: Path, clock: Clock | None = None) -> Iterator[Event]:
    """The events of a journal, and those that come, until the bake has ended or is dead."""
    seen = 0

    def look() -> Look[tuple[list[Event], bool]]:
        live = is_live(path)  # before it is read: then nothing is missed of one that ends
        events = list(read(path))
        over = not live or isinstance(events[-1] if events else None, BakeEnded)
        news = events[seen:]
        return Look("nothing new", (news, over) if news or over else None)

    over = False
    while not over:
        news, over = until(
            look, what=path.stem, timeout_s=math.inf, clock=clock, longest_s=LOOK_AGAIN_S
        )
        seen += len(news)
        yield from news
