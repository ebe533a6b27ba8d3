"""What an endpoint is started with, and when one that runs will do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amibuild.errors import UsageError
from amibuild.local.settings import Settings, told


def test_an_endpoint_serves_who_asks_for_nothing_in_particular() -> None:
    running = Settings(machine="none", port=8000, latency="run=8", faults=("A:1=B",)).facts()
    assert Settings().differences(running) == []


def test_what_is_asked_for_has_to_be_so() -> None:
    running = Settings(machine="none", port=8000, latency="run=8,stop=2").facts()
    assert Settings(machine="none", latency="stop=2,run=8").differences(running) == []
    asked = Settings(machine="qemu", port=8001, faults=("A:1=B", "C:*=D"))
    assert asked.differences(running) == [
        "--machine none, not qemu",
        "--port 8000, not 8001",
        "no --fault A:1=B --fault C:*=D",
    ]


def test_a_script_that_was_edited_since_is_another_one(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text("[]")
    asked = Settings(machine="none", script=script)
    running = json.loads(json.dumps(asked.facts()))
    assert asked.differences(running) == []
    script.write_text('[{"match": "x"}]')
    (difference,) = asked.differences(running)
    assert difference.startswith(f"--script {script} (sha256 4f53cda18c2b), not {script} (sha256 ")


def test_they_are_told_as_the_words_of_the_command_line() -> None:
    facts = Settings(machine="none", port=8000, faults=("A:1=B", "C:*=D")).facts()
    assert told(facts) == "--machine none --port 8000 --fault A:1=B --fault C:*=D"


@pytest.mark.parametrize(
    "asked",
    [
        Settings(latency="run=3"),
        Settings(machine="nspawn", script=Path("/script.json")),
        Settings(machine="qemu", faults=("RunInstances:1=X", "boot:1=no memory")),
    ],
)
def test_real_machines_take_no_script(asked: Settings) -> None:
    with pytest.raises(UsageError, match="for machines that are scripted"):
        asked.check()


def test_calls_fail_on_order_with_real_machines_too() -> None:
    Settings(machine="nspawn", faults=("RunInstances:1=InsufficientInstanceCapacity",)).check()


@pytest.mark.parametrize(
    "asked",
    [
        Settings(faults=("RunInstances:0=X",)),
        Settings(machine="none", latency="run=soon"),
        Settings(machine="none", script=Path("/no/such/script.json")),
    ],
)
def test_what_cant_be_read_is_refused_whether_one_runs_or_not(asked: Settings) -> None:
    with pytest.raises(UsageError):
        asked.check()
