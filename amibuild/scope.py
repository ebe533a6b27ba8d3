"""Owns every created thing: journals the intent, creates, journals the id, undoes in reverse.

The only way to create something that costs money. What a step gets from `own` will be removed
when the scope ends, unless `keep` was called: on success, failure and interruption alike, and by
`reap` after a kill, since each line of the journal is written before the thing can exist.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from amibuild import signals
from amibuild.errors import (
    AmibuildError,
    AwsError,
    HostError,
    Interrupted,
    Leftover,
    LeftoverError,
    WaitTimeout,
)
from amibuild.journal import (
    KEPT_FOR_A_LOOK,
    KEPT_TO_RESUME,
    Abandoned,
    Created,
    Intended,
    Journal,
    Kept,
    Noted,
    Removed,
    ResourceKind,
)
from amibuild.left_behind import left_behind, leftover
from amibuild.names import BakeId, client_token
from amibuild.wait import Clock, Look, Observer, SystemClock, silent, until

log = logging.getLogger(__name__)

# How long EC2 may hide what was just made, also what a lost call has made; seconds in practice.
SEARCH_S = 30.0


class OnError(StrEnum):
    CLEAN = "clean"
    KEEP = "keep"
    ASK = "ask"


class Remover(Protocol):
    """How to find and remove each kind of resource: the same for a scope's end and for `reap`."""

    def find(self, kind: ResourceKind, bake_id: BakeId, token: str, name: str) -> list[str]:
        """The ids of what an intent created, by the tags that its creating call set."""

    def begin(self, kind: ResourceKind, id_: str) -> None:
        """Starts a removal that takes time; nothing for kinds that go at once."""

    def remove(
        self, kind: ResourceKind, id_: str, token: str, observer: Observer, hidden_s: float = 0.0
    ) -> None:
        """Gone when this returns, with what the same call made along the way (an image's
        snapshots, found by `token`). What is already gone is a success; what can't be seen may
        be hidden for `hidden_s` still.

        Raises: LeftoverError when something else than `id_` stays."""

    def command(self, kind: ResourceKind, id_: str) -> str:
        """The AWS CLI line that removes it by hand."""


def may_hide_s(made: datetime, clock: Clock) -> float:
    """How long EC2 may still hide what was made, or asked for, at that time."""
    age_s = (clock.now() - made).total_seconds()
    return min(max(SEARCH_S - age_s, 0.0), SEARCH_S)


def find_intended(
    remover: Remover, bake_id: BakeId, intent: Intended, clock: Clock, observer: Observer
) -> list[str]:
    """What an intent without an id has made. For a while EC2 may hide what was just made."""

    def look() -> Look[list[str]]:
        found = remover.find(intent.kind, bake_id, intent.token, intent.name)
        return Look("not there", found or None)

    try:
        return until(
            look,
            what=f"{intent.kind} {intent.token}",
            timeout_s=may_hide_s(intent.at, clock),
            clock=clock,
            observer=observer,
        )
    except WaitTimeout:
        return []


@dataclass
class _Owned:
    kind: ResourceKind
    id: str
    token: str
    shown_at: float
    keep: str | None = None


class Scope:
    """Use as a context manager. `region` is where everything in it lives.

    `attempt` counts how often the bake was resumed: EC2 answers a token that it knows with what
    that one made, which may be gone by now.
    """

    def __init__(
        self,
        journal: Journal,
        remover: Remover,
        *,
        bake_id: BakeId,
        region: str,
        on_error: OnError = OnError.CLEAN,
        attempt: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._attempt = attempt
        self._journal = journal
        self._remover = remover
        self._bake_id = bake_id
        self._region = region
        self._on_error = on_error
        self._owned: list[_Owned] = []
        # What a call may have made whose answer was lost: kind, token and name.
        self._unseen: list[tuple[ResourceKind, str, str]] = []

    def own(self, kind: ResourceKind, purpose: str, name: str, create: Callable[[str], str]) -> str:
        """The id that `create(client_token)` returned, with its removal armed.

        `purpose` makes the token: unique in the bake, the same on a retry. When `create` raises,
        the account is searched for what it may have made all the same (a reply that got lost).
        """
        again = f"-{self._attempt}" if self._attempt else ""
        token = client_token(self._bake_id, purpose + again)
        with signals.hold():
            self._journal.write(Intended(kind=kind, name=name, token=token, region=self._region))
            try:
                id_ = create(token)
            except BaseException as error:
                self._search(kind, token, name, error)
                raise
            self._arm(kind, id_, token)
        return id_

    def adopt(self, created: Created) -> None:
        """What an earlier run of this bake has made is owned like the rest."""
        self._arm(created.kind, created.id, created.token, again=True)
        self.seen(created.id)

    def adopt_intended(self, intent: Intended) -> None:
        """The same for what it may have made: it ended before it knew."""
        found = find_intended(self._remover, self._bake_id, intent, self._clock, self._journal.show)
        for id_ in found:
            self._arm(intent.kind, id_, intent.token)
        if not found:
            self._journal.write(Abandoned(token=intent.token))

    def begin_removal(self, id_: str) -> None:
        """Starts it without waiting; the end of the scope waits, and tries again if need be.

        Not with `--on-error keep` or `ask`: what may still fail is what one wants to look at.
        """
        if self._on_error is not OnError.CLEAN:
            return
        for owned in self._owned:
            if owned.id == id_:
                self._begin(owned)

    def _begin(self, owned: _Owned) -> bool:
        try:
            self._remover.begin(owned.kind, owned.id)
        except AwsError as error:
            log.debug("removal of %s did not begin", owned.id, exc_info=error)
            return False
        return True

    def seen(self, id_: str) -> None:
        """EC2 shows it: when it is not found from now on, it is gone."""
        for owned in self._owned:
            if owned.id == id_:
                owned.shown_at = self._clock.monotonic()

    def note(self, text: str) -> None:
        self._journal.write(Noted(text=text))

    def remove(self, id_: str, *, why: str = "") -> None:
        """Now, not at the end: the end tries again what could not be removed. `why` is told."""
        if why:
            self.note(why)
        self._undo([owned for owned in self._owned if owned.id == id_])
        signals.deliver_now()

    def decide(self, on_error: OnError) -> None:
        """What it was made with, or what somebody who was asked has said instead."""
        self._on_error = on_error

    def keep(self, id_: str, why: str) -> bool:
        """It outlives the scope. False when it is not the scope's."""
        found = False
        for owned in self._owned:
            if owned.id == id_:
                owned.keep, found = why, True
                self._journal.tell(Kept(kind=owned.kind, id=id_, region=self._region, why=why))
        return found

    def leave_all(self, error: AmibuildError) -> None:
        """Something here is on its way and late: it waits for `bake --resume`, and `error` tells
        of it like of a leftover, which it is when nobody resumes."""
        for owned in self._owned:
            if owned.kind is ResourceKind.OBJECT:
                continue  # on the machine already, and has no tag that says until when it is kept
            self.keep(owned.id, KEPT_TO_RESUME)
            command = self._remover.command(owned.kind, owned.id)
            left = Leftover(owned.kind, owned.id, self._region, KEPT_TO_RESUME, command)
            error.leftovers = (*error.leftovers, left)

    def _arm(self, kind: ResourceKind, id_: str, token: str, *, again: bool = False) -> None:
        # Owned first: a journal that can't be written (a full disk) must not cost a removal.
        self._owned.append(_Owned(kind, id_, token, self._clock.monotonic() + SEARCH_S))
        self._journal.write(
            Created(kind=kind, id=id_, token=token, region=self._region, again=again)
        )

    def _search(self, kind: ResourceKind, token: str, name: str, error: BaseException) -> None:
        """What a failed creation may have made all the same is owned like the rest."""
        lost = not (isinstance(error, AwsError) and error.answered)

        def look() -> Look[list[str]]:
            found = self._remover.find(kind, self._bake_id, token, name)
            return Look("not there", found or None)

        try:
            found = until(
                look,
                what=f"{kind} {token}",
                timeout_s=SEARCH_S if lost else 0,
                clock=self._clock,
                observer=self._journal.show if lost else silent,
            )
        except WaitTimeout:
            if not lost:
                self._journal.write(Abandoned(token=token))
                return
            # The intent stays in the journal without an id: the scope's end and `reap` look again.
            self._unseen.append((kind, token, name))
        except AmibuildError as search_error:
            error.add_note(f"whether {kind} {token} exists is not known: {search_error.message}")
            if kind is ResourceKind.OBJECT:
                # Its name is its id, and S3 removes what is not there as well.
                self._arm(kind, name, token)
            else:
                self._unseen.append((kind, token, name))
        else:
            for id_ in found:
                self._arm(kind, id_, token)

    def _look_again(self) -> None:
        with signals.hold(deliver=False):
            for kind, token, name in self._unseen:
                with suppress(AmibuildError):
                    found = set(self._remover.find(kind, self._bake_id, token, name))
                    for id_ in found.difference(owned.id for owned in self._owned):
                        self._arm(kind, id_, token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._look_again()
        failed = error is not None and not isinstance(error, Interrupted)
        if failed and self._on_error is OnError.KEEP:
            self._keep_all()
        leftovers = self._undo([owned for owned in self._owned if owned.keep is None])
        if not leftovers:
            return
        problem = LeftoverError(leftovers)
        if error is None:
            raise problem
        # The first error wins; what could not be undone rides along for the report and exit code.
        error.add_note(problem.message)
        if isinstance(error, AmibuildError | Interrupted):
            error.leftovers = (*error.leftovers, *problem.leftovers)
        elif isinstance(error, OSError):
            # Of this host, as a full disk: nothing can ride along with it as it is.
            of_the_host = HostError(str(error))
            of_the_host.leftovers = problem.leftovers
            raise of_the_host from error

    def _keep_all(self) -> None:
        for owned in self._owned:
            if owned.keep is None and owned.kind is not ResourceKind.OBJECT:
                self.keep(owned.id, KEPT_FOR_A_LOOK)

    def _undo(self, doomed: list[_Owned]) -> list[Leftover]:
        """Removes in reverse order; a failure is journalled and never stops the rest."""
        left: list[Leftover] = []
        doomed = doomed[::-1]
        with signals.hold(deliver=False):
            # All machines at once: their ends take the longest, and free what else is to go.
            begun = [owned for owned in doomed if self._begin(owned)]
            # First what could not begin: of the others some may wait for its end.
            for owned in (*(one for one in doomed if one not in begun), *begun):
                hidden_s = max(owned.shown_at - self._clock.monotonic(), 0.0)
                try:
                    self._remover.remove(
                        owned.kind, owned.id, owned.token, self._journal.show, hidden_s
                    )
                except Exception as error:  # an undo must never stop the others
                    log.debug("removal of %s failed", owned.id, exc_info=error)
                    command = self._remover.command(owned.kind, owned.id)
                    for event in left_behind(error, owned.kind, owned.id, self._region, command):
                        left.append(leftover(event))
                        self._journal.tell(event)
                else:
                    self._owned.remove(owned)
                    self._journal.tell(Removed(kind=owned.kind, id=owned.id, region=self._region))
        return left
