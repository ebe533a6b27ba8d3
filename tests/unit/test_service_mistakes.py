"""What can't work, or would break out, is told: the file, the line and what to do."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from amibuild.library.folder import read_service
from tests.unit.services import SMALLEST, service


def told(tmp_path: Path, toml: str) -> list[str]:
    folder = tmp_path / "game"
    folder.mkdir()
    (folder / "service.toml").write_text(dedent(toml))
    return [str(p).replace(f"{folder}/", "") for p in read_service(folder).problems]


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


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"data": {"backup": ("world",)}}, "needs volume = true"),
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
        "service.toml: purpose: is missing: What it is, in a sentence",
        "service.toml:1: packages[0]: 'luanti server' is not the name of a Debian package",
        "service.toml:2: replaces_units[0]: 'luanti' is not the name of a unit,"
        " such as luanti-server.service",
        "service.toml:3: command[0]: the program 'server' must be a whole path, such as /usr/bin/x",
        "service.toml:7: environment.A-B: 'A-B' is not the name of an environment variable",
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
