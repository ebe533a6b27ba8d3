"""The guest agent's protocol, against an agent that this test plays."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amibuild.errors import HostError
from amibuild.local.machines.base import DataVolume, MachineSpec
from amibuild.local.machines.command import CANCELLED, OUTPUT_LIMIT
from amibuild.local.machines.guest_agent import (
    CALL_S,
    SILENCE_S,
    AgentGone,
    GuestAgent,
    GuestCommand,
)
from amibuild.local.machines.monitor import Monitor
from amibuild.local.machines.qemu_argv import SPARE_SLOTS
from amibuild.local.machines.qemu_volumes import QemuVolumes
from amibuild.wait import Look, until

Answers = Callable[[str, dict[str, Any]], dict[str, Any]]


class Guest:
    """Answers each request by `answers`; what it was asked is in `asked`."""

    def __init__(self, port: socket.socket, answers: Answers, greeting: bytes = b"") -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._port = port
        self._answers = answers
        self._greeting = greeting
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with self._port, self._port.makefile("rb") as lines:
            self._port.sendall(self._greeting)
            for line in lines:
                request = json.loads(line.replace(b"\xff", b""))
                command, arguments = request["execute"], request.get("arguments", {})
                if command == "guest-sync-delimited":
                    answer: dict[str, Any] = {"return": arguments["id"]}
                    self._port.sendall(b"\xff")
                else:
                    self.asked.append((command, arguments))
                    answer = self._answers(command, arguments)
                self._port.sendall(json.dumps(answer).encode() + b"\n")


@pytest.fixture
def ports() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def exec_answers(**status: Any) -> Answers:
    def answer(command: str, _: dict[str, Any]) -> dict[str, Any]:
        if command == "guest-exec":
            return {"return": {"pid": 42}}
        return {"return": status}

    return answer


def ended(command: GuestCommand) -> int:
    def look() -> Look[int]:
        return Look("running", command.poll())

    return until(look, what="the command", timeout_s=10)


def test_nobody_listens_until_somebody_does(ports: tuple[socket.socket, socket.socket]) -> None:
    near, far = ports
    agent = GuestAgent(near)
    assert not agent.listening()
    Guest(far, exec_answers())
    assert agent.listening()


def test_answers_to_forgotten_questions_are_skipped(
    ports: tuple[socket.socket, socket.socket],
) -> None:
    near, far = ports
    Guest(far, lambda *_: {"return": "mine"}, greeting=b'{"return": {"pid": 1}}\n{"ret')
    assert GuestAgent(near).call("guest-info") == "mine"


def test_a_machine_that_ends_does_not_keep_anybody_waiting(
    ports: tuple[socket.socket, socket.socket],
) -> None:
    near, far = ports
    agent = GuestAgent(near)
    far.close()
    for _ in ("the machine has ended", "and the driver has closed its own end"):
        assert not agent.listening()
        with pytest.raises(AgentGone):
            agent.call("guest-info")
        agent.close()


def test_a_refusal_is_an_error_with_the_agents_words(
    ports: tuple[socket.socket, socket.socket],
) -> None:
    near, far = ports
    Guest(far, lambda *_: {"error": {"class": "GenericError", "desc": "disabled"}})
    with pytest.raises(HostError, match="refused guest-exec: disabled"):
        GuestAgent(near).execute(("/bin/true",))


class Noted(socket.socket):
    """Writes down how long somebody was ready to wait."""

    longest_s = 0.0

    def settimeout(self, value: float | None, /) -> None:
        self.longest_s = max(self.longest_s, value or 0.0)
        super().settimeout(value)


def test_a_command_that_was_asked_for_is_waited_for_and_not_asked_for_again(
    ports: tuple[socket.socket, socket.socket],
) -> None:
    near, far = ports
    Guest(far, exec_answers())
    with Noted(fileno=near.detach()) as port:
        GuestAgent(port).call("guest-info")
        assert port.longest_s <= CALL_S
        GuestAgent(port).execute(("/bin/true",))
        assert CALL_S < SILENCE_S < port.longest_s


def test_a_command_brings_its_code_and_a_bounded_output(
    ports: tuple[socket.socket, socket.socket],
) -> None:
    near, far = ports
    out = base64.b64encode(b"o" * (OUTPUT_LIMIT + 1)).decode()
    err = base64.b64encode(b"oops").decode()
    status = {"exited": True, "exitcode": 7, "out-data": out, "err-data": err}
    guest = Guest(far, exec_answers(**status))
    command = GuestCommand(GuestAgent(near), b"#!/bin/bash\nexit 7\n", "one")
    assert ended(command) == 7
    assert command.output() == (b"o" * OUTPUT_LIMIT, b"oops")
    started = guest.asked[0][1]
    assert base64.b64decode(started["input-data"]) == b"#!/bin/bash\nexit 7\n"


def test_a_command_that_is_cancelled_says_so(ports: tuple[socket.socket, socket.socket]) -> None:
    near, far = ports
    guest = Guest(far, exec_answers(exited=True, signal=9))
    command = GuestCommand(GuestAgent(near), b"sleep 9\n", "one")
    command.cancel()
    command.cancel()
    assert ended(command) == CANCELLED
    assert [name for name, _ in guest.asked].count("guest-exec") == 2


def test_a_command_that_something_else_ended_is_an_error(
    ports: tuple[socket.socket, socket.socket],
) -> None:
    near, far = ports
    Guest(far, exec_answers(exited=True, signal=9))
    command = GuestCommand(GuestAgent(near), b"sleep 9\n", "one")
    with pytest.raises(HostError, match="one was ended from outside"):
        ended(command)


class Qemu:
    """QEMU's end of the control channel."""

    def __init__(self, channel: socket.socket, refuse: str = "") -> None:
        self.asked: list[dict[str, Any]] = []
        self._channel = channel
        self._refuse = refuse
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with self._channel, self._channel.makefile("rb") as lines:
            self.say({"QMP": {}})
            for line in lines:
                request = json.loads(line)
                self.asked.append(request)
                refused = request["execute"] == self._refuse
                answer = {"error": {"desc": "no"}} if refused else {"return": {}}
                self.say({**answer, "id": request["id"]})

    def say(self, message: dict[str, Any]) -> None:
        self._channel.sendall(json.dumps(message).encode() + b"\n")


def test_the_monitor_presses_the_button(ports: tuple[socket.socket, socket.socket]) -> None:
    near, far = ports
    qemu = Qemu(far)
    Monitor(near, name="test").press_power_button()
    assert [asked["execute"] for asked in qemu.asked] == ["qmp_capabilities", "system_powerdown"]


def test_the_monitor_counts_resets(ports: tuple[socket.socket, socket.socket]) -> None:
    near, far = ports
    qemu = Qemu(far)
    monitor = Monitor(near, name="test")
    qemu.say({"event": "RESET", "data": {}})
    qemu.say({"event": "NIC_RX_FILTER_CHANGED"})
    until(lambda: Look("none", monitor.resets or None), what="the reset", timeout_s=10)
    assert monitor.resets == 1


def test_a_button_of_a_machine_that_has_ended_does_nothing(
    ports: tuple[socket.socket, socket.socket],
) -> None:
    near, far = ports
    monitor = Monitor(near, name="test")
    far.close()
    monitor.press_power_button()


def test_a_disk_that_qemu_refuses_is_an_error(ports: tuple[socket.socket, socket.socket]) -> None:
    near, far = ports
    qemu = Qemu(far, refuse="device_add")
    monitor = Monitor(near, name="test")
    with pytest.raises(HostError, match="device_add"):
        monitor.plug_in({"node-name": "disk-slot1"}, {"id": "plugged-slot1"})
    assert qemu.asked[-1]["execute"] == "blockdev-del"
    assert qemu.asked[-1]["arguments"] == {"node-name": "disk-slot1"}


def spec(*volumes: DataVolume) -> MachineSpec:
    return MachineSpec(
        instance_id="i-0123456789abcdef0",
        disk=Path("disk.raw"),
        run_dir=Path("/run"),
        hostname="h",
        public_key=None,
        user_data=None,
        network_index=0,
        cpus=1,
        memory_mib=512,
        endpoint_port=1,
        volumes=volumes,
    )


FIRST = DataVolume("vol-0123456789abcdef0", Path("first.raw"))


def test_a_disk_is_out_when_the_guest_has_let_go_of_it_and_its_slot_is_free_then(
    ports: tuple[socket.socket, socket.socket],
) -> None:
    near, far = ports
    qemu = Qemu(far)
    volumes = QemuVolumes(Monitor(near, name="test"), spec(FIRST))
    assert not volumes.unplug(FIRST.volume_id)
    assert not volumes.unplug(FIRST.volume_id)
    asked = [(a["execute"], a["arguments"]) for a in qemu.asked[1:]]
    assert asked == [("device_del", {"id": "plugged-slot1"})]  # once, though we looked twice
    qemu.say({"event": "DEVICE_DELETED", "data": {"path": "/machine/x/virtio-backend"}})
    qemu.say({"event": "DEVICE_DELETED", "data": {"device": "plugged-slot1", "path": "/x"}})
    until(
        lambda: Look("in", volumes.unplug(FIRST.volume_id) or None), what="the disk", timeout_s=10
    )
    assert qemu.asked[-1]["arguments"] == {"node-name": "disk-slot1"}
    volumes.plug(FIRST)
    assert qemu.asked[-1]["arguments"]["bus"] == "slot1"
    assert not volumes.unplug(FIRST.volume_id)  # the event of its first time is forgotten


def test_a_machine_has_slots_to_spare_besides_the_volumes_that_it_starts_with(
    ports: tuple[socket.socket, socket.socket],
) -> None:
    near, far = ports
    qemu = Qemu(far)
    volumes = QemuVolumes(Monitor(near, name="test"), spec(FIRST))
    for number in range(SPARE_SLOTS):
        volumes.plug(DataVolume(f"vol-{number:017x}", Path("disk.raw")))
    with pytest.raises(HostError, match="slots for disks, and all are taken"):
        volumes.plug(DataVolume("vol-ffffffffffffffff", Path("disk.raw")))
    added = [a["arguments"]["bus"] for a in qemu.asked if a["execute"] == "device_add"]
    assert added == [f"slot{number}" for number in range(2, SPARE_SLOTS + 2)]


def test_a_disk_that_is_not_in_is_out(ports: tuple[socket.socket, socket.socket]) -> None:
    near, far = ports
    qemu = Qemu(far)
    assert QemuVolumes(Monitor(near, name="test"), spec()).unplug(FIRST.volume_id)
    assert [asked["execute"] for asked in qemu.asked] in ([], ["qmp_capabilities"])
