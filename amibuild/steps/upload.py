"""Payloads that are too large for a command, by way of the recipe's bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from amibuild.aws.session import Cloud
from amibuild.journal import ResourceKind
from amibuild.names import BakeId
from amibuild.scope import Scope
from amibuild.wait import Look, Observer, SystemClock, until

# As long as the longest step may wait for its turn, and no longer.
URL_VALID_S = 3600
# For a file of any size, over any line.
LONGEST_S = 24 * 3600
# What is over sooner is nothing to tell.
TOLD_AFTER_S = 1.0


class BucketUpload:
    """Stores a payload once, owned by the scope, and answers with a URL that fetches it.

    The observer hears of it while it goes on: gigabytes may take longer than a lock or a lease.
    """

    def __init__(
        self, cloud: Cloud, scope: Scope, bucket: str, bake_id: BakeId, observer: Observer
    ) -> None:
        self._cloud = cloud
        self._scope = scope
        self._bucket = bucket
        self._bake_id = bake_id
        self._observer = observer
        self._stored: set[str] = set()

    def __call__(self, payload: bytes) -> str:
        digest = hashlib.sha256(payload).hexdigest()
        key = f"amibuild/payloads/{self._bake_id}/{digest}.tar.gz"
        if key not in self._stored:
            self._store(key, payload)
        return self._cloud.s3.presigned_get(self._bucket, key, valid_s=URL_VALID_S)

    def file(self, path: Path, sha256: str, *, valid_s: int) -> str:
        """The same for a file, which is not read into memory: it may be gigabytes."""
        key = f"amibuild/artifacts/{self._bake_id}/{sha256}"
        if key not in self._stored:
            s3 = self._cloud.s3  # made here: a session makes its clients in one thread
            self._own(key, sha256, lambda: s3.put_file(self._bucket, key, path))
        return self._cloud.s3.presigned_get(self._bucket, key, valid_s=valid_s)

    def _store(self, key: str, payload: bytes) -> None:
        digest, s3 = key[-71:-7], self._cloud.s3
        self._own(key, digest, lambda: s3.put(self._bucket, key, payload))

    def _own(self, key: str, digest: str, put: Callable[[], None]) -> None:
        url = f"s3://{self._bucket}/{key}"

        def create(_: str) -> str:
            _observed(put, f"the upload of {digest[:16]}", self._observer)
            return url

        self._scope.own(ResourceKind.OBJECT, f"payload-{digest[:16]}", url, create)
        self._stored.add(key)


class _Until(SystemClock):
    """Nobody sleeps longer than that takes."""

    def __init__(self, done: Future[None]) -> None:
        self._done = done

    def sleep(self, seconds: float) -> None:
        wait([self._done], timeout=seconds)


def _observed(put: Callable[[], None], what: str, observer: Observer) -> None:
    """Calls it, beside a wait for its end. Raises: what it raises."""
    with ThreadPoolExecutor(1) as beside:
        done = beside.submit(put)
        wait([done], timeout=TOLD_AFTER_S)
        if done.done():
            return done.result()

        def look() -> Look[bool]:
            return Look("stored", True) if done.done() else Look("on its way")

        until(look, what=what, timeout_s=LONGEST_S, clock=_Until(done), observer=observer)
        return done.result()
