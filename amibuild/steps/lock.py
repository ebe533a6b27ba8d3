"""Takes the lock of an image, so that two bakes of it never run at once. amibuild/lock.py says how.

One call looks, one takes, one makes sure, one releases: the end of the scope that owns the lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from amibuild import lock
from amibuild.aws.session import Cloud
from amibuild.errors import (
    AmibuildError,
    AwsError,
    Duplicate,
    InUse,
    Locked,
    ResourceFailed,
    WaitTimeout,
)
from amibuild.journal import Journal, Noted, ResourceKind, Shown
from amibuild.lease import AGAIN_AFTER
from amibuild.names import BakeId
from amibuild.scope import Scope
from amibuild.wait import Clock, Look, Observer, Waiting, silent, until

log = logging.getLogger(__name__)

Now = Callable[[], datetime]

# Of an image. Whoever has it puts its end off at each event and each look of a wait, once a third
# of it is over. A call may be held for a quarter of an hour; nothing else is silent for that long.
LEASE = timedelta(hours=1)
# How long a list may leave out what was made a moment ago; never seen, as with groups.
VISIBLE_S = 60
# Ten make a page of GetParametersByPath, and a call of DeleteParameters: most bakes need no second.
EARLIER_KEPT = 9


class Overtaken(AmibuildError):
    """Another bake took the lock between the look and the taking: look again."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def look_at(cloud: Cloud, image: str) -> lock.Standing:
    return lock.standing(image, cloud.ssm.parameters_below(lock.folder(image)))


def wait_until_free(
    cloud: Cloud,
    image: str,
    state_dir: Path,
    *,
    timeout_s: float,
    clock: Clock | None = None,
    observer: Observer = silent,
    now: Now = utc_now,
) -> tuple[lock.Standing, bool]:
    """The lock as it is when nobody has it, and whether somebody had it at first.

    Raises: Locked when somebody still has it after `timeout_s`; ResourceFailed when its value is
    nobody's.
    """
    me = lock.here()
    held: lock.Holder | None = None

    def look() -> Look[lock.Standing]:
        nonlocal held
        seen = look_at(cloud, image)
        holder = seen.holder
        if holder.is_over(now()) or holder.is_dead(me, state_dir):
            return Look("free", seen)
        held = holder
        return Look(f"held by bake {holder.bake_id} ({holder.user}@{holder.host})")

    def tell(waiting: Waiting) -> None:
        if held is not None and timeout_s:
            observer(waiting)

    try:
        free = until(
            look, what=f"the lock of {image}", timeout_s=timeout_s, clock=clock, observer=tell
        )
    except WaitTimeout as timeout:
        assert held is not None
        raise Locked(
            image=image,
            bake_id=held.bake_id,
            who=f"{held.user}@{held.host}",
            since=held.since,
            until=held.free_at,
            waited_s=timeout.waited_s if timeout_s else 0.0,
        ) from timeout
    return free, held is not None


@contextmanager
def take(
    cloud: Cloud,
    scope: Scope,
    journal: Journal,
    bake_id: BakeId,
    free: lock.Standing,
    *,
    lease: timedelta,
    purpose: str = "lock",
    clock: Clock | None = None,
    now: Now = utc_now,
) -> Iterator[HeldLock]:
    """The lock, owned by the scope, whose end releases it; `purpose` is its own in that scope.

    It is renewed until this ends, and never after: what the scope has released stays so.
    Raises: Overtaken.
    """
    mine = lock.holder(bake_id, lock.here(), now(), lease)
    name = free.next

    def create(_: str) -> str:
        cloud.ssm.create_parameter(name, mine.model_dump_json())
        return name

    def look() -> Look[lock.Standing]:
        seen = look_at(cloud, free.image)
        return Look("not visible yet", seen if seen.generation > free.generation else None)

    def visible() -> lock.Standing:
        return until(look, what=name, timeout_s=VISIBLE_S, clock=clock, observer=journal.show)

    def overtaken() -> Overtaken:
        quicker = f"somebody else had the lock of {free.image} first"
        journal.write(Noted(text=f"{quicker}: this one begins anew"))
        return Overtaken(quicker)

    try:
        scope.own(ResourceKind.LOCK, purpose, name, create)
    except Duplicate as error:
        visible()  # else the next look would be in vain
        raise overtaken() from error
    except InUse as error:
        with suppress(WaitTimeout):  # of two calls at once none may have come through
            visible()
        raise overtaken() from error
    # Whoever slept since the look may have made a generation that had been there and gone again:
    # then a higher one is somebody else's.
    seen = visible()
    if seen.holder.bake_id != bake_id or now() >= mine.expires:
        raise overtaken()
    if not free.holder.released:
        journal.write(Noted(text=f"the lock was that of bake {free.holder.bake_id}, which is over"))
    _tidy(cloud, seen.below(free.generation + 1))
    held = HeldLock(cloud, name, mine, lease, now)
    with journal.heard_by(held.hear):
        yield held


def _tidy(cloud: Cloud, names: list[str]) -> None:
    if len(names) < EARLIER_KEPT:
        return
    try:
        cloud.ssm.delete_parameters(names)
    except AwsError as error:  # the next bake tries again
        log.warning("what is left of earlier locks stays: %s", error.message)


class HeldLock:
    """A lock that is ours until it expires."""

    def __init__(
        self, cloud: Cloud, name: str, mine: lock.Holder, lease: timedelta, now: Now
    ) -> None:
        self._cloud = cloud
        self._name = name
        self._mine = mine
        self._lease = lease
        self._now = now
        self._again = mine.since

    def hear(self, _: Shown) -> None:
        """The subscriber of the journal: a stage may outlive the lock. One that is lost is told by
        the next stage's look; here it would break off whatever happens to be told."""
        if self._now() < self._again:
            return
        self._again = self._now() + AGAIN_AFTER
        with suppress(ResourceFailed):
            self.renew()

    def renew(self) -> None:
        """Puts its end off once a third of its time is over. Only while it is ours beyond doubt:
        others take it some minutes after its date at the earliest, and nobody writes to it then.

        Raises: ResourceFailed when its time is over, as after a night in which this machine slept.
        """
        left = self._mine.expires - self._now()
        if left > self._lease * 2 / 3:
            return
        renewed = self._mine.model_copy(update={"expires": self._now() + self._lease})
        try:
            if left > timedelta():
                self._cloud.ssm.overwrite_parameter(self._name, renewed.model_dump_json())
        except AwsError as error:  # there may be time for other tries
            log.warning("the lock was not renewed: %s", error.message)
            renewed = self._mine
        # Without a network a call is held for a quarter of an hour.
        if self._now() >= self._mine.expires:
            raise ResourceFailed(
                what=f"the lock {self._name}",
                state="lost",
                reason=f"its time was over at {self._mine.expires:%Y-%m-%dT%H:%M:%SZ}",
                hint="another may have begun since: call it again",
            )
        self._mine = renewed
