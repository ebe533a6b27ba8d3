"""What a journal says of a bake's secrets: enough to tell two values apart, and no value."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from amibuild.errors import PlanError
from amibuild.journal import BakeStarted, StepRan
from amibuild.names import BakeId, InstanceId
from amibuild.resume import Earlier
from amibuild.secret import Secret

BAKE = BakeId("20261122-101500-a1b2c3")
VALUE = "a key of more than thirty characters"


def earlier(secret: Secret) -> Earlier:
    started = BakeStarted(
        bake_id=BAKE, image="game-host", digest="3f", target="aws", region="us-east-1",
        source_ami="ami-1", recipe="amibuild.toml", pid=7, version="0.1.0",
    )  # fmt: skip
    ran = StepRan(
        machine="i-1", step="licence", digest="3f", exit_code=0, seconds=1.0, log="licence.log",
        secrets={secret.name: secret.fingerprint(BAKE)},
    )  # fmt: skip
    return Earlier(
        bake_id=BAKE, attempt=1, began=datetime(2026, 11, 22, tzinfo=UTC), started=started,
        resources=(), intents=(), seconds={}, builder=InstanceId("i-1"), captured=None,
        ran={"licence": ran},
    )  # fmt: skip


def test_a_secret_that_a_step_was_given_must_have_its_value_still() -> None:
    bake = earlier(Secret("key", VALUE))
    bake.same_secrets({"key": Secret("key", VALUE)})
    with pytest.raises(PlanError, match="the secret key has another value since licence ran"):
        bake.same_secrets({"key": Secret("key", VALUE + "!")})


def test_a_fingerprint_is_another_in_another_bake_and_for_another_name() -> None:
    made = {
        Secret("key", VALUE).fingerprint(BAKE),
        Secret("key", VALUE).fingerprint("20261122-101500-a1b2c4"),
        Secret("other", VALUE).fingerprint(BAKE),
    }
    assert len(made) == 3
