"""The append-only event file of one bake: what is about to exist, what exists, what went away.

One JSON object a line in `.amibuild/journals/<bake-id>.jsonl`. A line is on the disk before the
thing that it announces can exist, so a killed bake can be cleaned up by reading it. The same
events feed the live view; those that matter to nobody afterwards are only shown, not written.
While a bake lives, its process holds a lock on the file: that is how `reap` knows a live one.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from amibuild.channel_lines import Moved, Moving, Pruning, Revoking
from amibuild.errors import AmibuildError, Leftover, LeftoverError, WaitTimeout
from amibuild.line import Line
from amibuild.recipe.ssh import Ssh
from amibuild.secret import all_masked
from amibuild.wait import Look, Waiting, until

# Why something was kept that is no result: `reap` and the story go by it.
KEPT_FOR_A_LOOK = "--on-error keep"
KEPT_TO_RESUME = "it was not ready in time, and `bake --resume` goes on with it"
KEPT_TO_DEVELOP = "`amibuild dev` goes on with it"
KEPT_FOR_LATER = frozenset({KEPT_FOR_A_LOOK, KEPT_TO_RESUME, KEPT_TO_DEVELOP})


class ResourceKind(StrEnum):
    """What a bake can create. `reap` knows how to find and remove each."""

    INSTANCE = "instance"
    SECURITY_GROUP = "security-group"
    IMAGE = "image"
    SNAPSHOT = "snapshot"
    VOLUME = "volume"
    OBJECT = "object"
    LOCK = "lock"


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    KEPT = "kept"


class BakeStarted(Line):
    """Once more, with the same id, where a bake is resumed."""

    event: Literal["bake-started"] = "bake-started"
    bake_id: str
    image: str
    digest: str
    target: str
    region: str
    source_ami: str
    recipe: str
    pid: int
    version: str
    flow: str = "bake"
    source_reference: str = ""
    volume_gib: int = 0
    kms_key: str | None = None
    overrides: tuple[str, ...] = ()
    launched_as: str = ""
    # How its machines are reached: by their agent and SSM where this is None.
    ssh: Ssh | None = None
    fresh_over_ssh: bool = False


class StepStarted(Line):
    event: Literal["step-started"] = "step-started"
    step: str
    what: str


class StepEnded(Line):
    event: Literal["step-ended"] = "step-ended"
    step: str
    seconds: float
    detail: str = ""


class StepFailed(Line):
    event: Literal["step-failed"] = "step-failed"
    step: str
    seconds: float
    error: str


class Given(Line):
    """A step is about to get secrets on that machine, and whether it ends well or not, they may be
    there from now on. `secrets` are fingerprints by name, which tell another value from it."""

    event: Literal["given"] = "given"
    machine: str
    step: str
    secrets: dict[str, str]


class StepRan(Line):
    """A build step ended well on that machine: a resumed bake need not do it again."""

    event: Literal["step-ran"] = "step-ran"
    machine: str
    step: str
    digest: str
    exit_code: int
    seconds: float
    log: str
    notes: tuple[str, ...] = ()
    installed_bytes: int | None = None


class Found(Line):
    """What was found on that machine before it was sealed, as JSON: it can't be asked again."""

    event: Literal["found"] = "found"
    machine: str
    what: str
    body: str


class Intended(Line):
    """Something is about to be created, under this name and client token."""

    event: Literal["intended"] = "intended"
    kind: ResourceKind
    name: str
    token: str
    region: str


class Created(Line):
    """`again` is for what an earlier run made, and this one has taken over."""

    event: Literal["created"] = "created"
    kind: ResourceKind
    id: str
    token: str
    region: str
    again: bool = False


class Abandoned(Line):
    """An intent came to nothing: the account was searched by its token, and nothing was there."""

    event: Literal["abandoned"] = "abandoned"
    token: str


class Removed(Line):
    event: Literal["removed"] = "removed"
    kind: ResourceKind
    id: str
    region: str


class Kept(Line):
    """It stays: the result, or what `--on-error keep` left for a look."""

    event: Literal["kept"] = "kept"
    kind: ResourceKind
    id: str
    region: str
    why: str


class LeftBehind(Line):
    event: Literal["left-behind"] = "left-behind"
    kind: ResourceKind
    id: str
    region: str
    reason: str
    command: str


class Noted(Line):
    event: Literal["noted"] = "noted"
    text: str


class BakeEnded(Line):
    event: Literal["bake-ended"] = "bake-ended"
    outcome: Outcome
    seconds: float


Event = (
    BakeStarted
    | StepStarted
    | StepEnded
    | StepFailed
    | Given
    | StepRan
    | Found
    | Intended
    | Created
    | Abandoned
    | Removed
    | Kept
    | LeftBehind
    | Noted
    | Moving
    | Moved
    | Revoking
    | Pruning
    | BakeEnded
)
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])

Shown = Event | Waiting
"""What a subscriber hears: every written event, and the waits between them."""
Subscriber = Callable[[Shown], None]


# `at` is the first field of all events. In a text within one, the quotes would have a backslash.
BEGIN = re.compile(rb'(?=\{"at":)')


# Who only looks whether a bake lives has its journal for a moment.
LOOKED_AT_S = 2


class JournalBusy(AmibuildError):
    """Another process has this journal: its bake is alive, or somebody reaps it."""

    def __init__(self, bake_id: str) -> None:
        super().__init__(
            f"{bake_id} is another process's at the moment: it runs, or is cleaned up after",
            hint="`amibuild bakes` lists it; wait for that process, or end it (Ctrl-C)",
        )


class Journal:
    """Opened by the one process that writes it. Use as a context manager."""

    def __init__(self, path: Path, subscribers: tuple[Subscriber, ...] = ()) -> None:
        self.path = path
        self._subscribers = subscribers
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            until(self._locked, what=str(path), timeout_s=LOOKED_AT_S)
        except WaitTimeout as error:
            os.close(self._file)
            raise JournalBusy(path.stem) from error
        self._end_torn_line()

    def _locked(self) -> Look[bool]:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return Look("busy")
        return Look("free", True)

    def _end_torn_line(self) -> None:
        """A line cut off by a kill must not swallow the next one."""
        if self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n"):
            os.write(self._file, b"\n")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._file)

    @contextmanager
    def heard_by(self, subscriber: Subscriber) -> Iterator[None]:
        """One more subscriber, until this ends."""
        before = self._subscribers
        self._subscribers = (*before, subscriber)
        try:
            yield
        finally:
            self._subscribers = before

    def write(self, event: Event) -> None:
        """On the disk when this returns, then shown."""
        event = _masked(event)
        os.write(self._file, event.model_dump_json().encode() + b"\n")
        os.fsync(self._file)
        self.show(event)

    def show(self, shown: Shown) -> None:
        """Only shown: a look of a polling loop is nothing that anybody reads later."""
        for subscriber in self._subscribers:
            subscriber(shown)


def _masked(event: Event) -> Event:
    """Its texts, not the line: that stays JSON whatever a secret looks like."""
    told = event.model_dump()
    shown = all_masked(told)
    return event if shown == told else type(event).model_validate(shown)


def read(path: Path) -> Iterator[Event]:
    """The events of a journal. A torn or unknown line is skipped: the rest is still true.

    Where a line's end is damaged, or another writer's line follows a torn one, the next event is
    still whole and is found by how each begins.
    """
    for line in path.read_bytes().split(b"\n"):
        for text in BEGIN.split(line):
            # Nothing but a damaged end of a line can stand behind the last brace.
            with suppress(ValidationError):
                yield _EVENT.validate_json(text[: text.rfind(b"}") + 1])


def is_live(path: Path) -> bool:
    """True while the process that writes it runs (on this machine)."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


class Remains:
    """What a journal says still exists: intents that never got an id, and ids never removed."""

    def __init__(self, path: Path) -> None:
        self.started: BakeStarted | None = None
        self.ended: BakeEnded | None = None
        self.intents: dict[str, Intended] = {}
        self.resources: dict[str, Created] = {}
        self.kept: dict[str, Kept] = {}
        for event in read(path):
            match event:
                case BakeStarted():
                    self.started, self.ended = event, None
                case Intended(token=token):
                    self.intents[token] = event
                case Created(token=token, id=id_):
                    self.intents.pop(token, None)
                    self.kept.pop(id_, None)  # a resumed bake has taken it back
                    self.resources[id_] = event
                case Abandoned(token=token):
                    self.intents.pop(token, None)
                case Removed(id=id_):
                    self.resources.pop(id_, None)
                    self.kept.pop(id_, None)
                case Kept(id=id_):
                    self.kept[id_] = event
                case BakeEnded():
                    self.ended = event
                case _:
                    pass


def leftover(event: LeftBehind) -> Leftover:
    return Leftover(event.kind, event.id, event.region, event.reason, event.command)


def left_behind(
    error: Exception, kind: ResourceKind, id_: str, region: str, command: str
) -> list[LeftBehind]:
    """What a failed removal of `id_` has left: that, or what the error names instead."""
    if not isinstance(error, LeftoverError):
        reason = str(error)
        return [LeftBehind(kind=kind, id=id_, region=region, reason=reason, command=command)]
    return [
        LeftBehind(
            kind=ResourceKind(one.kind),
            id=one.id,
            region=one.region,
            reason=one.reason,
            command=one.command,
        )
        for one in error.leftovers
    ]


def journal_path(state_dir: Path, bake_id: str) -> Path:
    return state_dir / "journals" / f"{bake_id}.jsonl"
