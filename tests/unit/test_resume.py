"""What a bake keeps for the one that goes on with it: nothing that tells a secret, nor any longer
than its machines live."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from amibuild.bake_keys import forget_keys, keys_file
from amibuild.errors import PlanError
from amibuild.journal import (
    Created,
    Given,
    Journal,
    Removed,
    ResourceKind,
    journal_path,
)
from amibuild.names import BakeId, InstanceId
from amibuild.resume import Earlier
from amibuild.secret import Secret
from tests.unit.fakes import STARTED

BAKE = BakeId(STARTED.bake_id)
VALUE = "a key of more than thirty characters"


def earlier(secret: Secret) -> Earlier:
    marks = {secret.name: secret.fingerprint(BAKE)}
    given = Given(machine="i-1", step="licence", secrets=marks)
    return Earlier(
        bake_id=BAKE, attempt=1, began=datetime(2026, 11, 22, tzinfo=UTC), started=STARTED,
        resources=(), intents=(), seconds={}, builder=InstanceId("i-1"), captured=None,
        given=(given,),
    )  # fmt: skip


def test_a_secret_that_a_step_was_given_must_have_its_value_still() -> None:
    bake = earlier(Secret("key", VALUE))
    bake.same_secrets({"key": Secret("key", VALUE)})
    with pytest.raises(PlanError, match="the secret key has another value since licence had it"):
        bake.same_secrets({"key": Secret("key", VALUE + "!")})
    with pytest.raises(PlanError, match="licence had the secret key there, and no step reads it"):
        bake.same_secrets({})


def test_a_fingerprint_is_another_in_another_bake_and_for_another_name() -> None:
    made = {
        Secret("key", VALUE).fingerprint(BAKE),
        Secret("key", VALUE).fingerprint("20261122-101500-a1b2c4"),
        Secret("other", VALUE).fingerprint(BAKE),
    }
    assert len(made) == 3


def test_the_keys_to_a_machine_go_with_it(tmp_path: Path) -> None:
    keys = keys_file(tmp_path, BAKE)
    keys.parent.mkdir()
    keys.write_text("{}")
    kind, id_, region = ResourceKind.INSTANCE, "i-1", STARTED.region
    with Journal(journal_path(tmp_path, BAKE)) as journal:
        journal.write(Created(kind=kind, id=id_, token="t", region=region))
        forget_keys(tmp_path, BAKE)
        assert keys.exists()
        journal.write(Removed(kind=kind, id=id_, region=region))
    forget_keys(tmp_path, BAKE)
    assert not keys.exists()
    forget_keys(tmp_path, BAKE)  # again: a bake over SSM has none
