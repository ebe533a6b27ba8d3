"""Hours in milliseconds: what waits in this process goes on at once, and is told that it waited.

For flows against an endpoint in the same process. amibuild waits in wait.py, botocore before it
tries again (`endpoint`) and when the account was throttled (`bucket`): each gets the same clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import botocore.endpoint
import pytest
from botocore.retries import bucket

from amibuild import wait

# So long a sleep takes at most: the endpoint's threads get on with what is waited for.
NAP_S = 0.01


class SwiftClock:
    """Real time, and on top of it what was slept."""

    def __init__(self) -> None:
        self._slept_s = 0.0
        self._nap = threading.Event()

    def monotonic(self) -> float:
        return time.monotonic() + self._slept_s

    def time(self) -> float:
        return time.time() + self._slept_s

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._slept_s)

    def sleep(self, seconds: float) -> None:
        self._nap.wait(min(seconds, NAP_S))
        self._slept_s += max(seconds - NAP_S, 0.0)


@contextmanager
def swift() -> Iterator[SwiftClock]:
    """All waits of this process are short while it lasts."""
    clock = SwiftClock()

    class Condition(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            clock.sleep(timeout or 0.0)
            return True

    locks: Any = SimpleNamespace(Lock=threading.Lock, Condition=Condition)
    with pytest.MonkeyPatch.context() as patch:
        for module in (wait, botocore.endpoint, bucket):
            patch.setattr(module, "time", clock)
        patch.setattr(bucket, "threading", locks)
        yield clock
