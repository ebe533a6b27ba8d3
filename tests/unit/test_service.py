"""A service.toml compiles to all that a service needs, and its words can't break out of it."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from amibuild.library.compile import compile_service
from amibuild.library.folder import read_service
from amibuild.library.load import bundled_provisioners
from amibuild.library.service import Service, ServiceFile
from amibuild.library.step import BuildStep, StepFile, StepKind
from amibuild.library.unit import unit_text
from tests.conftest import Golden

SMALLEST: dict[str, Any] = {
    "purpose": "A server.",
    "command": ("/usr/bin/server",),
    "ports": ({"name": "game", "port": 7777, "protocol": "udp"},),
    "memory_mib": 64,
}


def service(**fields: Any) -> Service:
    return Service("game", ServiceFile.model_validate({**SMALLEST, **fields}))


def lines(key: str, **fields: Any) -> list[str]:
    """The values of a setting in the unit."""
    unit = unit_text(service(**fields)).splitlines()
    return [value for name, _, value in (line.partition("=") for line in unit) if name == key]


def brought(path: str, **fields: Any) -> str:
    """The text of a file that the service brings to an image called `host`."""
    files = compile_service(service(**fields), "host").files
    (found,) = [f.content.decode() for f in files if f.path == path]
    return found


def told(tmp_path: Path, toml: str) -> list[str]:
    folder = tmp_path / "game"
    folder.mkdir()
    (folder / "service.toml").write_text(dedent(toml))
    return [str(p).replace(f"{folder}/", "") for p in read_service(folder).problems]


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
    assert lines("SystemCallFilter", runtime="mono") == ["@system-service", "~@privileged"]
    assert lines("RestrictAddressFamilies", runtime="mono") == [
        "AF_INET AF_INET6 AF_UNIX AF_NETLINK"
    ]


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


def test_only_public_ports_are_opened() -> None:
    ports = (
        *SMALLEST["ports"],
        {"name": "status", "port": 80, "protocol": "tcp", "public": False},
        {"name": "second", "port": 7000, "protocol": "udp"},
    )
    assert brought("firewall.nft", ports=ports) == (
        "# game\nadd element inet amibuild udp_open { 7000, 7777 }\n"
    )


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


@pytest.mark.parametrize(
    ("players", "problem"),
    [
        ({"tcp": ("game",)}, "there is no tcp port called game"),
        ({"udp": ("game",), "command": ("/bin/x",)}, "give one way to count"),
        ({"command": ("x",)}, "must be a whole path"),
    ],
)
def test_a_probe_that_cannot_work_is_told(players: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        service(players=players)


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


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"data": {"backup": ("world",)}}, "backup needs volume = true"),
        ({"data": {"volume": True, "backup": ("../x",)}}, "not a path below the state directory"),
        ({"data": {"volume": True, "backup": ("/etc",)}}, "not a path below the state directory"),
        ({"logs": {"files": ("/var/log/x",)}}, "must be below {state}"),
        ({"logs": {"files": ("{state}/a b",)}}, "which logrotate can't take"),
        ({"secrets": ({"name": "a"}, {"name": "a"})}, "two secrets are called a"),
        ({"secrets": ({"name": "a", "id": 'x"y'},)}, "is not the name of a parameter or secret"),
    ],
)
def test_what_would_break_out_or_never_work_is_told(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        service(**fields)


def test_a_new_password_is_set_before_the_first_start() -> None:
    assert lines("ExecStartPre", first_start=("/usr/bin/server", "--set", "{state}/db")) == [
        "/usr/lib/amibuild/first-start /var/lib/svc-game /usr/bin/server --set /var/lib/svc-game/db"
    ]
    assert lines("ExecStartPre") == []


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
    assert [check.path for check in minetest.checks] == [
        "test_every_service.py",
        "test_minetest.py",
    ]


def test_every_mistake_in_a_service_is_told(tmp_path: Path) -> None:
    assert told(
        tmp_path,
        """\
        packages = ["luanti server"]
        replaces_units = ["luanti"]
        command = ["server", "--port", "{port.gam}", "{stat}"]
        memory_mib = 1
        stop_signal = "SIGNIT"
        [environment]
        "A-B" = "x"
        [[ports]]
        name = "game"
        port = 70000
        protocol = "upd"
        """,
    ) == [
        "service.toml: purpose: is missing",
        "service.toml:1: packages: 'luanti server' is not the name of a Debian package",
        "service.toml:2: replaces_units: 'luanti' is not the name of a unit,"
        " such as luanti-server.service",
        "service.toml:3: command: the program 'server' must be a whole path, such as /usr/bin/x",
        "service.toml:6: environment: 'A-B' is not the name of an environment variable",
        "service.toml:10: ports[0].port: must be at most 65535",
        "service.toml:11: ports[0].protocol: 'upd' is not one of tcp, udp; did you mean udp?",
        "service.toml:4: memory_mib: must be at least 16",
        "service.toml:5: stop_signal: 'SIGNIT' is not one of SIGTERM, SIGINT, SIGQUIT, SIGHUP,"
        " SIGUSR1, SIGUSR2; did you mean SIGINT?",
    ]


def test_a_placeholder_for_nothing_is_told(tmp_path: Path) -> None:
    assert told(
        tmp_path,
        """\
        purpose = "A server."
        command = [
            "/usr/bin/server",
            "{port.gam}",
        ]
        memory_mib = 64
        [environment]
        HOME = "{stat}"
        X = "{zzz}"
        [[ports]]
        name = "game"
        port = 7777
        protocol = "udp"
        """,
    ) == [
        "service.toml:4: command[1]: {port.gam} stands for nothing; did you mean port.game?",
        "service.toml:8: environment.HOME: {stat} stands for nothing; did you mean state?",
        "service.toml:9: environment.X: {zzz} stands for nothing;"
        " known are state, config, port.game",
    ]


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ({"name": "game", "port": 1, "protocol": "tcp"}, "two ports are called game"),
        ({"name": "query", "port": 7777, "protocol": "udp"}, "7777/udp stands here twice"),
    ],
)
def test_two_ports_that_are_one_are_told(second: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        service(ports=(*SMALLEST["ports"], second))


def test_one_number_may_be_a_tcp_and_a_udp_port() -> None:
    second = {"name": "query", "port": 7777, "protocol": "tcp"}
    assert len(service(ports=(*SMALLEST["ports"], second)).file.ports) == 2


@pytest.mark.parametrize("key", ["purpose", "command"])
def test_a_line_break_cannot_smuggle_in_a_setting(key: str) -> None:
    bad = "x\nUser=root"
    value = ("/bin/x", bad) if key == "command" else bad
    with pytest.raises(ValueError, match="must be one line"):
        service(**{key: value})


def test_a_line_break_in_the_environment_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one line"):
        service(environment={"A": "x\nUser=root"})


def test_a_script_beside_a_service_is_not_left_out_silently(tmp_path: Path) -> None:
    folder = tmp_path / "game"
    folder.mkdir()
    (folder / "run.sh").write_text("")
    assert any("data alone" in p.problem for p in read_service(folder).problems)


BASE = """\
purpose = "A server."
command = ["/usr/bin/server", "{port.game}"]
memory_mib = 64
[environment]
A = "1"
B = "2"
[[ports]]
name = "game"
port = 7777
protocol = "udp"
"""


def folders(tmp_path: Path, **texts: str) -> dict[str, Path]:
    """A folder for each service.toml."""
    found = {}
    for name, text in texts.items():
        found[name] = tmp_path / name
        (found[name] / "files").mkdir(parents=True)
        (found[name] / "service.toml").write_text(text)
    return found


def based(tmp_path: Path, name: str = "second", **texts: str) -> list[str]:
    """The mistakes in a service that is based on others."""
    found = folders(tmp_path, **texts)
    return [str(p).replace(f"{tmp_path}/", "") for p in read_service(found[name], found).problems]


def test_a_second_instance_gives_only_what_differs(tmp_path: Path) -> None:
    second = """\
    based_on = "first"
    memory_mib = 128
    [environment]
    B = "3"
    [[ports]]
    name = "game"
    port = 7778
    protocol = "udp"
    """
    found = folders(tmp_path, first=BASE, second=dedent(second))
    (found["first"] / "files/a.conf").write_text("first")
    (found["first"] / "files/b.conf").write_text("first")
    (found["second"] / "files/b.conf").write_text("second")
    (found["first"] / "test_first.py").write_text("def test_it() -> None: ...")
    read = read_service(found["second"], found)
    assert read.problems == ()
    assert read.value is not None
    assert read.value.name == "second"
    assert read.value.file.memory_mib == 128
    assert read.value.file.environment == {"A": "1", "B": "3"}
    assert [port.port for port in read.value.file.ports] == [7778]
    assert {f.path: f.content for f in read.value.configuration} == {
        "a.conf": b"first",
        "b.conf": b"second",
    }
    assert [check.path for check in read.value.checks] == ["test_first.py"]
    assert "ExecStart=/usr/bin/server 7778" in unit_text(read.value)


def test_a_mistake_is_told_in_the_file_that_it_is_in(tmp_path: Path) -> None:
    wrong = BASE.replace("64", "1")
    second = 'based_on = "first"\ncpu_percent = 0\n'
    assert based(tmp_path, first=wrong, second=second) == [
        "first/service.toml:3: memory_mib: must be at least 16",
        "second/service.toml:2: cpu_percent: must be at least 1",
    ]


def test_a_list_that_is_replaced_is_not_filled_up_from_below(tmp_path: Path) -> None:
    second = 'based_on = "first"\n[[ports]]\nname = "game"\nprotocol = "udp"\n'
    assert based(tmp_path, first=BASE, second=second) == [
        "second/service.toml:2: ports[0].port: is missing"
    ]


def test_a_circle_and_an_unknown_base_are_told(tmp_path: Path) -> None:
    assert based(
        tmp_path / "a", first='based_on = "second"\n' + BASE, second='based_on = "first"'
    ) == ["first/service.toml:1: based_on: goes round in a circle: second -> first -> second"]
    assert based(tmp_path / "b", first=BASE, second='based_on = "firs"\n' + BASE) == [
        "second/service.toml:1: based_on: there is no service firs; did you mean first?"
    ]
