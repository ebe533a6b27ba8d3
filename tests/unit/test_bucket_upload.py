"""What goes to the bucket is heard of while it goes on: a lock and a lease live by that."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from amibuild.aws.s3 import S3
from amibuild.aws.session import Cloud
from amibuild.errors import AwsError
from amibuild.journal import Created, Journal, read
from amibuild.names import EndpointAccess
from amibuild.scope import Scope
from amibuild.steps.upload import BucketUpload
from amibuild.wait import Waiting
from tests.unit.test_spot import BAKE, NothingThere

PATIENCE_S = 60.0


class Slow(S3):
    """Stores nothing before somebody has heard of it."""

    def __init__(self, refusal: AwsError | None = None) -> None:
        self.heard = threading.Event()
        self.refusal = refusal
        self.in_time = False

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self.in_time = self.heard.wait(PATIENCE_S)
        if self.refusal is not None:
            raise self.refusal

    def presigned_get(self, bucket: str, key: str, *, valid_s: int) -> str:
        return f"https://{bucket}/{key}"


def uploaded(store: Slow, folder: Path) -> tuple[str, list[Waiting]]:
    told: list[Waiting] = []

    def hear(waiting: Waiting) -> None:
        told.append(waiting)
        store.heard.set()

    cloud = Cloud(region="r", access=EndpointAccess("http://127.0.0.1:1", "x", "x"))
    cloud.s3 = store
    with (
        Journal(folder / "journal.jsonl") as journal,
        Scope(journal, NothingThere(), bake_id=BAKE, region="r") as scope,
    ):
        return BucketUpload(cloud, scope, "ours", BAKE, hear)(b"payload"), told


def test_an_upload_that_takes_long_is_heard_of_while_it_goes_on(tmp_path: Path) -> None:
    store = Slow()
    url, told = uploaded(store, tmp_path)
    assert store.in_time
    assert (told[0].state, told[-1].state) == ("on its way", "stored")
    (made,) = (event for event in read(tmp_path / "journal.jsonl") if isinstance(event, Created))
    assert made.id.removeprefix("s3://") == url.removeprefix("https://")


def test_one_that_fails_after_that_fails_as_it_would(tmp_path: Path) -> None:
    refusal = AwsError(operation="PutObject", code="SlowDown", message="later", region="r")
    store = Slow(refusal)
    with pytest.raises(AwsError) as failed:
        uploaded(store, tmp_path)
    assert failed.value is refusal
    assert store.in_time
