"""How long a flow's temporary things are nobody's but its own, and how that is moved on.

Each thing says in its tags when it is free for `reap`, from whatever machine. A flow that lives
longer than that would lose what it works with, so it moves the date on once two thirds of the time
are over. It hears of the passing of time as a subscriber of its journal: at each event and at each
look of each wait. The machines have a timer besides, which each job sets back: see begin-lease.sh.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta

from amibuild.aws.session import Cloud
from amibuild.aws.temporary import extend
from amibuild.errors import AmibuildError
from amibuild.journal import ResourceKind, Shown, StepStarted
from amibuild.names import BakeId, Tag, expiry
from amibuild.wait import Clock

log = logging.getLogger(__name__)

# A third of a lease is 20 minutes and more, which leaves time for other tries.
AGAIN_AFTER = timedelta(minutes=1)


class Lease(Mapping[str, str]):
    """The tags of what is made now: `fixed` ones, and when it ends, which may change.

    So the end is read by the call that makes something, and never one that has been moved on.
    """

    def __init__(
        self,
        cloud: Cloud,
        bake_id: BakeId,
        fixed: Mapping[str, str],
        length: timedelta,
        clock: Clock,
    ) -> None:
        self._cloud = cloud
        self._bake_id = bake_id
        self._fixed = fixed
        self._length = length
        self._clock = clock
        self._expires = expiry(clock.now(), length)
        self._due = clock.now() + length * 2 / 3
        self._without_end: tuple[ResourceKind, ...] = ()

    def hear(self, shown: Shown) -> None:
        """Moves the end of all that the flow has, when it is time."""
        if self._clock.now() >= self._due:
            self.renew()
        if isinstance(shown, StepStarted) and shown.step == "distribute":
            # Its end goes now. EC2 may show it a while longer, and it must not come back.
            self._without_end = (ResourceKind.IMAGE, ResourceKind.SNAPSHOT)

    def renew(self) -> None:
        now = self._clock.now()
        expires = expiry(now, self._length)
        try:
            extend(self._cloud, self._bake_id, expires, but=self._without_end)
        except AmibuildError as error:
            log.warning("what is made here can't be given a later end yet: %s", error.message)
            self._due = now + AGAIN_AFTER
            return
        self._expires = expires
        self._due = now + self._length * 2 / 3

    def __getitem__(self, key: str) -> str:
        return self._expires if key == Tag.EXPIRES else self._fixed[key]

    def __iter__(self) -> Iterator[str]:
        yield from self._fixed
        yield Tag.EXPIRES

    def __len__(self) -> int:
        return len(self._fixed) + 1
