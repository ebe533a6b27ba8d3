"""How long a call goes on that gets no connection: the network of this machine may be away.

botocore tries ten times, which is about a minute, and then asks here. Only where the last try did
not get as far as a connection it goes on; of earlier ones nothing is known here, so a call must
bear to be carried out twice, as with botocore's own tries. What connects and then breaks off is no
network that is away: those tries are enough for it.
"""

from __future__ import annotations

import logging
from typing import Protocol

from botocore.exceptions import (
    ConnectTimeoutError,
    EndpointConnectionError,
    ProxyConnectionError,
)

from amibuild import signals
from amibuild.wait import Clock, SystemClock

log = logging.getLogger(__name__)

# A bake is to live through ten minutes without a network, and a router takes its time to come back.
LONGEST_S = 900.0
# Often enough to go on soon, and far from anybody's limits.
PAUSE_S = 5.0
# What is over sooner is nothing to tell.
TOLD_AFTER_S = 10.0
UNREACHED = (ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError)


class Endpoint(Protocol):
    """botocore's, of which only this is known here: scheme and host of its service."""

    host: str


class Patience:
    """Of one session: what its clients learn of the network, they learn for all of them."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._answered: set[str] = set()
        self._away_since: dict[str, float] = {}
        self._told: set[str] = set()

    def hear(
        self, *, endpoint: Endpoint, caught_exception: Exception | None, **_: object
    ) -> float | None:
        """The subscriber of `needs-retry`, which is asked after each try: the seconds until the
        next one, or None to leave it to botocore, whose own answer comes first.

        Who never answered is no network that is away, but a wrong region or endpoint. Once
        interrupted, nobody waits for long.
        """
        host = endpoint.host
        if caught_exception is None:
            self._answers(host)
            return None
        if not isinstance(caught_exception, UNREACHED) or host not in self._answered:
            return None
        now = self._clock.monotonic()
        away_s = now - self._away_since.setdefault(host, now)
        if away_s >= LONGEST_S or signals.arrived():
            return None
        if away_s >= TOLD_AFTER_S and host not in self._told:
            self._told.add(host)
            log.warning(
                "no connection to %s since %.0f s; trying again until it is %.0f s",
                host, away_s, LONGEST_S,
            )  # fmt: skip
        return PAUSE_S

    def _answers(self, host: str) -> None:
        self._answered.add(host)
        since = self._away_since.pop(host, None)
        if since is not None and host in self._told:
            self._told.discard(host)
            log.warning("%s answers again, after %.0f s", host, self._clock.monotonic() - since)
