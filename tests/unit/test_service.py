"""A service.toml compiles to all that a service needs beside its unit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from amibuild.library.compile import compile_service
from amibuild.library.folder import read_service
from amibuild.library.load import bundled_provisioners
from amibuild.library.service import Service, ServiceFile
from amibuild.library.step import BuildStep, StepFile, StepKind
from tests.conftest import Golden
from tests.unit.services import SMALLEST, brought, service


@pytest.fixture
def minetest() -> BuildStep:
    found = read_service(bundled_provisioners() / "services/minetest")
    assert found.problems == ()
    assert found.value is not None
    return compile_service(found.value)


def shown(step: BuildStep) -> str:
    """All that a step brings to the image, and what is said of it."""
    head = {
        "name": step.name,
        "kind": step.kind,
        "purpose": step.purpose,
        "timeout_s": step.timeout_s,
        "environment": step.environment,
        "files": {f.path: oct(f.mode) for f in step.files},
        "checks": [check.path for check in step.checks],
        "facts": step.facts,
    }
    texts = [
        f"==> {f.path}\n{f.content.decode()}" for f in step.files if not f.path.startswith("bin/")
    ]
    return "\n".join([json.dumps(head, indent=2) + "\n", f"==> run.sh\n{step.script}", *texts])


def test_minetest_compiles_to_this(minetest: BuildStep, golden: Golden) -> None:
    golden("service-minetest.txt", shown(minetest))


def test_the_same_service_gives_the_same_step(minetest: BuildStep) -> None:
    again = read_service(bundled_provisioners() / "services/minetest").value
    assert again is not None
    assert compile_service(again) == minetest


def test_facts_are_plain_json(minetest: BuildStep) -> None:
    assert json.loads(json.dumps(minetest.facts)) == minetest.facts
    assert minetest.facts["ports"] == [
        {"name": "game", "port": 30000, "protocol": "udp", "public": True}
    ]
    assert minetest.kind is StepKind.SERVICE


def test_the_port_is_written_in_one_place_only(minetest: BuildStep) -> None:
    text = (bundled_provisioners() / "services/minetest/service.toml").read_text()
    assert text.count("30000") == 1
    unit = next(f.content.decode() for f in minetest.files if f.path == "units/minetest.service")
    assert "--port 30000" in unit


def test_a_service_has_its_own_user_unit_and_directories() -> None:
    facts = compile_service(service()).facts
    assert facts["user"] == "svc-game"
    assert facts["unit"] == "game.service"
    assert facts["state_directory"] == "/var/lib/svc-game"
    assert facts["config_directory"] == "/etc/svc-game"


def test_only_public_ports_are_opened() -> None:
    ports = (
        *SMALLEST["ports"],
        {"name": "status", "port": 80, "protocol": "tcp", "public": False},
        {"name": "second", "port": 7000, "protocol": "udp"},
    )
    opened = [line for line in brought("firewall.nft", ports=ports).splitlines() if "_open" in line]
    assert opened == ["add element inet amibuild udp_open { 7000, 7777 }"]


def test_its_journal_and_log_files_are_shipped_and_the_files_rotated() -> None:
    fields = {"logs": {"files": ("{state}/logs/*.log",)}}
    collected = json.loads(brought("cloudwatch.json", **fields))["logs"]["logs_collected"]
    group = {"log_group_name": "/host/game", "retention_in_days": 365}
    assert collected["journald"]["collect_list"] == [
        {**group, "log_stream_name": "{instance_id}", "units": ["game.service"]}
    ]
    assert collected["files"]["collect_list"] == [
        {
            **group,
            "log_stream_name": "{instance_id}-files",
            "file_path": "/var/lib/svc-game/logs/*.log",
        }
    ]
    assert brought("logrotate.conf", **fields).splitlines() == [
        "/var/lib/svc-game/logs/*.log {",
        "    su svc-game svc-game",
        "    daily",
        "    rotate 1",
        "    nocompress",
        "    copytruncate",
        "    missingok",
        "    notifempty",
        "}",
    ]


def test_what_our_programs_need_is_installed_with_it() -> None:
    def packages(**fields: Any) -> str:
        return compile_service(service(**fields)).environment["SERVICE_PACKAGES"]

    assert packages() == ""
    assert packages(logs={"files": ("{state}/x.log",)}) == "logrotate"
    assert packages(secrets=({"name": "a"},), packages=("curl", "xz")) == "curl xz"


def test_without_log_files_nothing_is_rotated() -> None:
    assert "logrotate.conf" not in {f.path for f in compile_service(service()).files}
    assert "files" not in json.loads(brought("cloudwatch.json"))["logs"]["logs_collected"]


def test_players_are_counted_on_all_public_ports_unless_told_otherwise() -> None:
    ports = (
        *SMALLEST["ports"],
        {"name": "status", "port": 80, "protocol": "tcp", "public": False},
    )

    def counted(**players: Any) -> Any:
        return compile_service(service(ports=ports, players=players)).facts["players"]

    assert counted() == {"tcp": [], "udp": [7777]}
    assert counted(tcp=("status",)) == {"tcp": [80], "udp": []}
    assert counted(command=("/bin/count", "{port.game}")) == {"command": ["/bin/count", "7777"]}
    assert counted(http={"port": "status", "key": "players"}) == {
        "http": {"port": 80, "path": "/", "key": "players"}
    }


def test_placeholders_in_its_configuration_files_are_filled_in() -> None:
    files = (
        StepFile("game.conf", b"port={port.game} {unknown} {}\n"),
        StepFile("logo.png", b"\x89{state}\xff"),
    )
    step = compile_service(Service("game", ServiceFile.model_validate(SMALLEST), files))
    found = {f.path: f.content for f in step.files}
    assert found["config/game.conf"] == b"port=7777 {unknown} {}\n"
    assert found["config/logo.png"] == b"\x89{state}\xff"


def test_configuration_files_go_below_config() -> None:
    step = compile_service(
        Service(
            "game",
            ServiceFile.model_validate(SMALLEST),
            (StepFile("sub/game.conf", b"x", 0o755),),
        )
    )
    assert StepFile("config/sub/game.conf", b"x") in step.files


def test_every_service_is_checked_for_the_same_things_and_its_own(minetest: BuildStep) -> None:
    assert [check.path for check in minetest.checks if not check.path.startswith("attack/")] == [
        "test_every_service.py",
        "test_sandbox.py",
        "test_minetest.py",
    ]
