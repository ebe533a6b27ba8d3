"""A service.toml compiles to all that a service needs, and its words can't break out of it."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from amibuild.library.compile import compile_service, unit_text
from amibuild.library.folder import read_service
from amibuild.library.load import bundled_provisioners
from amibuild.library.service import Service, ServiceFile
from amibuild.library.step import BuildStep, StepFile, StepKind
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
    texts = [f"==> {f.path}\n{f.content.decode()}" for f in step.files]
    return "\n".join([json.dumps(head, indent=2) + "\n", f"==> run.sh\n{step.script}", *texts])


def test_minetest_compiles_to_this(minetest: BuildStep, golden: Golden) -> None:
    golden("service-minetest.txt", shown(minetest))


def test_the_same_service_gives_the_same_step(minetest: BuildStep) -> None:
    again = read_service(bundled_provisioners() / "services/minetest").value
    assert again is not None
    assert compile_service(again) == minetest


def test_facts_are_plain_json(minetest: BuildStep) -> None:
    assert json.loads(json.dumps(minetest.facts)) == minetest.facts
    assert minetest.facts["ports"] == [{"name": "game", "port": 30000, "protocol": "udp"}]
    assert minetest.kind is StepKind.SERVICE


def test_the_port_is_written_in_one_place_only(minetest: BuildStep) -> None:
    text = (bundled_provisioners() / "services/minetest/service.toml").read_text()
    assert text.count("30000") == 1
    unit = next(f.content.decode() for f in minetest.files if f.path == "unit.service")
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
    assert lines("RestartSec") == ["5s"]


def test_code_made_at_run_time_is_refused_unless_asked_for() -> None:
    assert lines("MemoryDenyWriteExecute") == ["yes"]
    assert lines("MemoryDenyWriteExecute", writable_code=True) == []


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
