"""Payloads that are too large for a command, by way of the recipe's bucket."""

from __future__ import annotations

import hashlib

from amibuild.aws.session import Cloud
from amibuild.journal import ResourceKind
from amibuild.names import BakeId
from amibuild.scope import Scope

# As long as the longest step may wait for its turn, and no longer.
URL_VALID_S = 3600


class BucketUpload:
    """Stores a payload once, owned by the scope, and answers with a URL that fetches it."""

    def __init__(self, cloud: Cloud, scope: Scope, bucket: str, bake_id: BakeId) -> None:
        self._cloud = cloud
        self._scope = scope
        self._bucket = bucket
        self._bake_id = bake_id
        self._stored: set[str] = set()

    def __call__(self, payload: bytes) -> str:
        digest = hashlib.sha256(payload).hexdigest()
        key = f"amibuild/payloads/{self._bake_id}/{digest}.tar.gz"
        if key not in self._stored:
            self._store(key, payload)
        return self._cloud.s3.presigned_get(self._bucket, key, valid_s=URL_VALID_S)

    def _store(self, key: str, payload: bytes) -> None:
        url = f"s3://{self._bucket}/{key}"

        def create(_: str) -> str:
            self._cloud.s3.put(self._bucket, key, payload)
            return url

        self._scope.own(ResourceKind.OBJECT, f"payload-{key[-71:-7][:16]}", url, create)
        self._stored.add(key)
