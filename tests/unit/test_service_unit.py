"""What a service.toml says reaches its systemd unit, and no word of it breaks out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.library.compile import compile_service
from tests.unit.services import brought, lines, service


def test_placeholders_are_filled_in_and_other_braces_stay() -> None:
    fields = {
        "command": ("/usr/bin/server", "--at={state}/x", "{config}", "{port.game}", "{json: {}}"),
        "environment": {"HOME": "{state}"},
    }
    assert lines("ExecStart", **fields) == [
        '/usr/bin/server --at=/var/lib/svc-game/x /etc/svc-game 7777 "{json: {}}"'
    ]
    assert lines("Environment", **fields) == ["HOME=/var/lib/svc-game"]


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("", '""'),
        ("100%", "100%%"),
        ("$HOME", "$$HOME"),
        ("a$b c", '"a$$b c"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("it's", '"it\'s"'),
        ("back\\slash", "back\\\\slash"),
        (";", '";"'),
        ("tab\there", '"tab\\there"'),
    ],
)
def test_a_word_of_the_command_reaches_the_program_as_it_is(word: str, written: str) -> None:
    """Source: systemd.service(5), "Command lines", and systemd.unit(5), "Specifiers"."""
    assert lines("ExecStart", command=("/usr/bin/server", word)) == [f"/usr/bin/server {written}"]


def test_a_purpose_with_a_percent_sign_is_no_specifier() -> None:
    assert lines("Description", purpose="100% fun") == ["100%% fun"]


def test_a_dollar_in_the_environment_stays_one() -> None:
    assert lines("Environment", environment={"A": "$x 5%"}) == ['"A=$x 5%%"']


def test_stopping_and_restarting_are_the_services_own() -> None:
    fields = {"stop_signal": "SIGINT", "stop_timeout_s": 7, "restart": "no"}
    assert lines("KillSignal", **fields) == ["SIGINT"]
    assert lines("TimeoutStopSec", **fields) == ["7s"]
    assert lines("Restart", **fields) == ["no"]
    assert lines("RestartSec", **fields) == []
    assert lines("RestartSec") == ["2s"]


def test_a_graceful_end_may_have_a_code_of_its_own() -> None:
    assert lines("SuccessExitStatus") == []
    assert lines("SuccessExitStatus", stop_codes=(15, 130)) == ["15 130"]


def test_a_server_that_fails_is_never_given_up_but_waits_longer_each_time() -> None:
    assert lines("StartLimitIntervalSec") == ["0"]
    assert lines("RestartSteps") == ["6"]
    assert lines("RestartMaxDelaySec") == ["60s"]


def test_limits_are_the_services_own() -> None:
    assert lines("CPUQuota") == []
    assert lines("CPUQuota", cpu_percent=150) == ["150%"]
    assert lines("TasksMax") == ["512"]
    assert lines("TasksMax", tasks_max=9) == ["9"]


def test_the_runtime_decides_how_tight_the_sandbox_is() -> None:
    assert lines("MemoryDenyWriteExecute") == ["yes"]
    assert lines("MemoryDenyWriteExecute", runtime="jit") == []
    assert lines("SystemCallFilter", runtime="jit") == lines("SystemCallFilter")
    assert lines("MemoryDenyWriteExecute", runtime="mono") == []
    usual, detours, denied = lines("SystemCallFilter", runtime="mono")
    assert (usual, denied) == ("@system-service", "~@privileged")
    assert detours.startswith("~memfd_create ")
    assert lines("RestrictAddressFamilies", runtime="mono") == [
        "AF_INET AF_INET6 AF_UNIX AF_NETLINK"
    ]


def test_what_it_can_write_to_it_can_not_run_unless_its_program_lies_there() -> None:
    assert lines("NoExecPaths") == ["/var/lib/svc-game /tmp /var/tmp"]
    assert lines("NoExecPaths", runs_from_state=True) == ["/tmp /var/tmp"]
    (shared,) = lines("TemporaryFileSystem")
    assert shared.startswith("/dev/shm:")
    assert "noexec" in shared.partition(":")[2].split(",")


def test_the_metadata_address_is_closed_to_it_by_its_unit_and_by_the_firewall() -> None:
    assert lines("IPAddressDeny") == ["169.254.169.254 fd00:ec2::254"]
    rules = [line.strip() for line in brought("firewall.nft").splitlines() if "daddr" in line]
    assert rules == [
        'meta skuid SERVICE_UID ip daddr 169.254.169.254 counter reject comment "svc-game"',
        'meta skuid SERVICE_UID ip6 daddr fd00:ec2::254 counter reject comment "svc-game"',
    ]


def test_it_is_open_to_one_that_uses_the_role() -> None:
    assert lines("IPAddressDeny", uses_role=True) == []
    assert brought("firewall.nft", uses_role=True).splitlines() == [
        "# game",
        "add element inet amibuild udp_open { 7777 }",
    ]
    assert compile_service(service(uses_role=True)).facts["uses_role"] is True
    assert compile_service(service()).facts["uses_role"] is False


def test_the_firewall_is_installed_with_the_users_number_for_its_name(tmp_path: Path) -> None:
    """nft refuses all files when one has a name that no user has."""
    step = compile_service(service())
    (filled_in,) = [line for line in step.script.splitlines() if "SERVICE_UID" in line]
    (tmp_path / "firewall.nft").write_text(brought("firewall.nft"))
    proc.run(["bash", "-c", f"uid=987\n{filled_in}"], cwd=tmp_path)
    (written,) = [path for path in tmp_path.iterdir() if path.name != "firewall.nft"]
    assert f"install -D -m 0644 {written.name} " in step.script
    asked = re.findall(r"skuid (\S+)", written.read_text())
    assert asked == ["987", "987"]


def test_a_line_that_ends_it_goes_through_a_fifo_that_is_cleared() -> None:
    fields = {"stop_input": "say $HOME; /exit"}
    assert lines("ExecStop", **fields) == [
        '/usr/lib/amibuild/stop-by-line /run/svc-game/stdin "say $$HOME; /exit"'
    ]
    assert lines("Sockets", **fields) == ["game.socket"]
    assert lines("StandardInput", **fields) == ["socket"]
    assert lines("StandardOutput", **fields) == ["journal"]
    assert lines("Requires", **fields) == ["game.socket"]
    assert brought("units/game.socket", **fields).splitlines()[5:] == [
        "ListenFIFO=/run/svc-game/stdin",
        "SocketUser=svc-game",
        "SocketGroup=svc-game",
        "SocketMode=0600",
        "FlushPending=yes",
        "RemoveOnStop=yes",
    ]
    assert lines("ExecStop") == lines("Sockets") == lines("Requires") == []


def test_secrets_become_credentials_fetched_before_the_start() -> None:
    fields = {
        "secrets": ({"name": "token"}, {"name": "key", "id": "prod/k", "from": "secretsmanager"}),
        "command": ("/usr/bin/server", "--token-file", "{secret.token}"),
    }
    assert lines("LoadCredential", **fields) == [
        "token:/run/amibuild/secrets/game/token",
        "key:/run/amibuild/secrets/game/key",
    ]
    assert lines("ExecStart", **fields) == [
        "/usr/bin/server --token-file /run/credentials/game.service/token"
    ]
    assert lines("Requires", **fields) == ["game-secrets.service"]
    assert compile_service(service(**fields), "host").facts["secrets"] == [
        {"name": "token", "id": "/host/game/token", "from": "ssm"},
        {"name": "key", "id": "prod/k", "from": "secretsmanager"},
    ]


def test_a_data_volume_is_mounted_before_the_start() -> None:
    fields = {"data": {"volume": True, "size_gib": 7, "backup": ("world",)}}
    assert lines("Requires", **fields) == ["game-data.service"]
    assert lines("After", **fields) == ["network.target game-data.service"]
    facts = compile_service(service(**fields)).facts
    assert facts["volume"] == {"size_gib": 7}
    assert facts["backup"] == {"paths": ["world"], "tag": "daily"}


def test_a_new_password_is_set_before_the_first_start() -> None:
    assert lines("ExecStartPre", first_start=("/usr/bin/server", "--set", "{state}/db")) == [
        "/usr/lib/amibuild/first-start /var/lib/svc-game /usr/bin/server --set /var/lib/svc-game/db"
    ]
    assert lines("ExecStartPre") == []
