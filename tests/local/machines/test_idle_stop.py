"""A real machine with two real game servers powers itself off, and never while somebody plays.

Only the time is shorter: settings of a tenth of a minute, which the program takes as any other
number, and a timer that looks each second. Everything comes over the machine's own veth.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, Thread
from typing import Any

import pytest

from amibuild.library.compile import compile_service
from amibuild.library.folder import read_provisioner, read_service
from amibuild.library.load import bundled_provisioners
from amibuild.library.provisioner import compile_provisioner
from amibuild.library.step import BuildStep
from amibuild.local.machines.nspawn import NspawnDriver
from amibuild.wait import Look, until
from tests.local.machines.running import Running, Start
from tests.local.steps import installing

pytestmark = [
    pytest.mark.machine,
    pytest.mark.soak,  # a minute, for a power-off that is waited for
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]

TCP, UDP = 5154, 30000
# Of the test's own timer: one look a second.
TIMER = "[Timer]\nOnUnitActiveSec=\nOnUnitActiveSec=1s\nAccuracySec=50ms\n"
SETTINGS = "minutes = {minutes}\ndry_run = {dry_run}\n"
WAIT_MINUTES = 0.1
# Luanti: protocol id, peer, channel; an empty packet of a new client, a reliable ping of a known.
HELLO = bytes.fromhex("4f45740300000001")
# BZFlag: what a client says first, and its question about the game, answered each time.
GREETING, QUESTION = b"BZFLAG\r\n\r\n", bytes.fromhex("00007167")


def service(name: str) -> BuildStep:
    read = read_service(bundled_provisioners() / "services" / name)
    assert read.value, read.problems
    return compile_service(read.value)


def idle_stop(**given: Any) -> BuildStep:
    read = read_provisioner(bundled_provisioners() / "idle-stop")
    assert read.value, read.problems
    return compile_provisioner(read.value, given)


def said(running: Running) -> list[dict[str, Any]]:
    """All decisions in the journal, oldest first."""
    lines = running.ask("journalctl --sync; journalctl -t idle-stop -o cat --no-pager").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def until_said(
    running: Running, fits: Callable[[dict[str, Any]], bool], *, times: int = 1
) -> list[dict[str, Any]]:
    """Decisions from now on, once so many in a row fit."""
    before = len(said(running))

    def look() -> Look[list[dict[str, Any]]]:
        new = said(running)[before:]
        last = new[-times:]
        done = len(last) == times and all(fits(decision) for decision in last)
        return Look(json.dumps(new[-1:]), new if done else None)

    return until(look, what="a decision", timeout_s=90)


def settings(running: Running, *, minutes: float, dry_run: bool = True) -> None:
    text = SETTINGS.format(minutes=minutes, dry_run=str(dry_run).lower())
    running.ask(f"cat >/etc/amibuild/idle-stop.toml <<'EOF'\n{text}EOF")


@contextmanager
def going_on(turn: Callable[[Event], None]) -> Iterator[None]:
    """`turn` over and over in a thread, until the end; its failure is the test's."""
    over = Event()
    failed: list[BaseException] = []

    def go() -> None:
        try:
            turn(over)
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    thread = Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failed:
        raise failed[0]


def plays_over_tcp(address: str) -> Callable[[Event], None]:
    def play(over: Event) -> None:
        with socket.create_connection((address, TCP), timeout=20) as connection:
            connection.sendall(GREETING)
            assert connection.recv(1024)
            while not over.wait(0.2):
                connection.sendall(QUESTION)
                assert connection.recv(1024)

    return play


def plays_over_udp(address: str, *, after_s: float) -> Callable[[Event], None]:
    """Says hello, learns its number, then sends what each client sends for as long as it plays.

    It can't log in, so the server parts with it after some seconds; then it comes back.
    """

    def play(over: Event) -> None:
        over.wait(after_s)
        while not over.is_set():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(20)
                client.sendto(HELLO, (address, UDP))
                answer = client.recv(2048)
                while answer[7:8] != b"\3" or answer[10:12] != b"\0\1":  # reliable: "you are …"
                    answer = client.recv(2048)
                head = HELLO[:4] + answer[12:14] + b"\0\3"
                client.settimeout(0.5)
                with suppress(TimeoutError):
                    number = 65500
                    while not over.wait(0.05):
                        ping = head + number.to_bytes(2, "big") + b"\0\2"
                        client.sendto(ping, (address, UDP))
                        client.recv(2048)
                        number = (number + 1) % 65536

    return play


def scans(address: str) -> Callable[[Event], None]:
    """Connects to and leaves its TCP ports, and sends each UDP port a packet from a new one: an
    empty one, noise, and the very hello that the game answers."""

    def scan(over: Event) -> None:
        for _ in range(600):
            for port in (22, 80, 443, TCP, UDP):
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                    probe.settimeout(0.2)
                    probe.connect_ex((address, port))
            for port in (53, 161, TCP, UDP):
                for content in (b"", b"\0" * 48, HELLO):
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                        probe.sendto(content, (address, port))
            if over.wait(0.1):
                return

    return scan


@pytest.fixture(scope="module")
def machine(start_for_all: Start) -> Iterator[Running]:
    running = start_for_all(NspawnDriver())
    running.await_first_boot()
    for step in (
        idle_stop(maintenance=("Mon..Fri 02:00-04:00",)),
        *map(service, ("minetest", "bzflag")),
    ):
        running.ask(installing(step))
    # Here every path of the metadata has an answer; on EC2 an instance without such a tag has none.
    running.ask("install -D /dev/null /etc/amibuild/volumes/minetest")
    running.ask("systemctl start minetest bzflag")
    yield running
    running.machine.kill()


@pytest.fixture(scope="module")
def looking(machine: Running) -> Running:
    """It looks each second, nobody is there, and it says when it would power off."""
    settings(machine, minutes=WAIT_MINUTES)
    machine.ask(
        "mkdir -p /run/systemd/system/idle-stop.timer.d\n"
        f"cat >/run/systemd/system/idle-stop.timer.d/test.conf <<'EOF'\n{TIMER}EOF\n"
        "systemctl daemon-reload; systemctl start idle-stop.timer\n"
        f"for _ in $(seq 60); do ss -Hltn 'sport = :{TCP}' | grep -q . && "
        f"ss -Hlun 'sport = :{UDP}' | grep -q . && break; sleep 0.5; done"
    )
    return machine


def would(decision: dict[str, Any]) -> bool:
    return bool(decision["decision"] == "would-power-off")


def both_play(decision: dict[str, Any]) -> bool:
    return decision["players"]["bzflag"] == 1 and bool(decision["players"]["minetest"])


def test_the_recipes_settings_reach_it(machine: Running) -> None:
    assert machine.ask("cat /etc/amibuild/idle-stop.toml").splitlines()[1:] == [
        "minutes = 30",
        "dry_run = false",
        "maintenance = [",
        "    'Mon..Fri 02:00-04:00',",
        "]",
    ]


def test_a_window_that_is_none_fails_the_bake(machine: Running) -> None:
    with pytest.raises(AssertionError, match="'Mo 2-4' is not a window"):
        machine.ask(installing(idle_stop(maintenance=("Mo 2-4",))))
    machine.ask(installing(idle_stop()))


def test_in_the_first_minutes_it_stays_on_with_nobody_there(machine: Running) -> None:
    machine.ask("systemctl start idle-stop.service")
    machine.ask("systemctl start idle-stop.service")
    last = said(machine)[-1]
    assert (last["decision"], last["reason"]) == ("stay", "booted")
    assert last["players"] == {"bzflag": 0, "minetest": 0}
    assert 25 < last["minutes_left"] <= 30


def test_a_port_scan_does_not_keep_it_on(looking: Running) -> None:
    with going_on(scans(looking.machine.private_ip)):
        decisions = until_said(looking, would, times=3)
    assert {tuple(decision["players"].values()) for decision in decisions[-3:]} == {(0, 0)}


def test_a_file_holds_it(looking: Running) -> None:
    looking.ask("touch /run/amibuild/keep-awake")
    held = until_said(looking, lambda decision: bool(decision["reason"] == "keep-awake"))
    assert held[-1]["notes"] == ["held by /run/amibuild/keep-awake"]
    looking.ask("date -u -d '1 minute ago' +%FT%TZ >/run/amibuild/keep-awake")
    until_said(looking, would)


def test_players_over_tcp_and_udp_keep_it_on_and_the_wait_begins_when_they_left(
    looking: Running,
) -> None:
    address = looking.machine.private_ip
    with ExitStack() as playing:
        playing.enter_context(going_on(plays_over_tcp(address)))
        for after_s in (0, 5):
            playing.enter_context(going_on(plays_over_udp(address, after_s=after_s)))
        until_said(looking, both_play)
        # For longer than the wait, by each way of counting.
        seen = until_said(looking, both_play, times=10)
        assert not any(would(decision) for decision in seen)
    left = until_said(looking, would)
    waited = [decision["reason"] for decision in left if decision["reason"] == "idle"]
    assert len(waited) >= 3, left


def test_a_flushed_firewall_is_no_reason_to_power_off(looking: Running) -> None:
    looking.ask("nft flush ruleset")
    seen = until_said(looking, would)
    reasons = [decision["reason"] for decision in seen]
    assert "not-told" in reasons
    assert "idle" in reasons


def test_it_powers_off_while_it_is_scanned(looking: Running) -> None:
    """Last, for then it is gone."""
    with going_on(scans(looking.machine.private_ip)):
        settings(looking, minutes=WAIT_MINUTES, dry_run=False)
        looking.await_exit()
    console = looking.machine.console().decode(errors="replace")
    assert "System is powered down" in console or "Powering off" in console, console[-2000:]
