"""A connection over SSH that went silent without a word is given up, and another one made."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from amibuild.communicator.base import RemoteJob
from amibuild.communicator.ssh import SshCommunicator
from amibuild.communicator.ssh_link import SILENCE_S, Away, Why, answered
from amibuild.wait import silent
from tests.unit.ssh_server import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "run")
    yield made
    made.close()


def test_one_that_went_silent_while_nothing_ran_is_not_asked_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amibuild.communicator.ssh_link.CONNECT_S", 1)
    ssh = SshCommunicator(machine.link)
    ssh.boot_id()
    machine.proxy.be_silent()
    with pytest.raises(Away):
        ssh.try_once()
    assert not machine.link.is_open
    assert ssh.run(RemoteJob("step", "echo ran", 60), silent).log == "ran\n"


@pytest.mark.parametrize("asked", ["a command", "a terminal"])
def test_what_is_not_answered_is_given_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr("amibuild.communicator.ssh_link.SILENCE_S", 1)
    with machine.link.session() as channel:
        machine.proxy.be_silent()
        with pytest.raises(Away, match="nothing came back on the connection") as caught:
            if asked == "a command":
                machine.link.begin(channel, "true")
            else:
                with machine.link.failing(), answered(channel):
                    channel.get_pty()
    assert caught.value.why is Why.SILENT
    assert not machine.link.is_open


def test_a_machine_that_opens_no_further_channel_has_answered(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = SshCommunicator(machine.link)
    ssh.boot_id()
    machine.full = True
    with pytest.raises(Away):
        ssh.try_once()
    assert machine.link.is_open


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
def test_what_is_never_acknowledged_ends_the_connection(machine: Machine) -> None:
    with machine.link.session() as channel:
        sock = channel.get_transport().sock
        assert isinstance(sock, socket.socket)
        limit_ms = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert limit_ms == SILENCE_S * 1000
