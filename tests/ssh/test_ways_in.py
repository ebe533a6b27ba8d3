"""Every way in that a recipe's [ssh] can name, against OpenSSH's own sshd on loopback."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from amibuild.communicator.ssh import SshCommunicator
from amibuild.communicator.ssh_keys import Identity, new_identity, public_line
from amibuild.communicator.ssh_link import Away, Link, Place, Why
from amibuild.errors import CommandFailed, HostKeyRefused, PlanError
from amibuild.recipe.ssh import Ssh
from amibuild.wait import Look, SystemClock, until
from tests.local.tcp_proxy import Proxy
from tests.ssh.sshd import (
    LOCKED_OUT,
    ORDINARY,
    Sshd,
    agent,
    free_port,
    keygen,
    needs_sshd,
    needs_sudo,
    private_key,
    sshd,
)

pytestmark = needs_sshd


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a key, and no agent, but what a test puts there."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


@contextmanager
def linked(
    at: Sshd, identity: Identity | None = None, *, port: int | None = None, **settings: Any
) -> Iterator[SshCommunicator]:
    asked = Ssh.model_validate({"user": "root", **settings})
    place = Place("127.0.0.1", port or at.port, asked)
    with closing(Link(place, identity or at.identity, SystemClock())) as link:
        yield SshCommunicator(link)


def boots(at: Sshd, identity: Identity | None = None, **settings: Any) -> bool:
    """Whether a command has an answer there, as root."""
    with linked(at, identity, **settings) as communicator:
        communicator.try_once()
        return len(communicator.boot_id()) == 36


def test_the_key_of_the_bake_opens_at_a_port_that_is_not_sshs(tmp_path: Path) -> None:
    with sshd(tmp_path) as at:
        assert at.port != 22
        assert boots(at)
        assert "Accepted publickey for root" in at.said


@needs_sudo
def test_another_user_becomes_root_by_sudo(tmp_path: Path) -> None:
    with sshd(tmp_path) as at:
        assert boots(at, user=ORDINARY)
        assert f"Accepted publickey for {ORDINARY}" in at.said


def test_a_user_who_may_not_become_root_is_told_so_at_once(tmp_path: Path) -> None:
    with sshd(tmp_path) as at, pytest.raises(CommandFailed) as caught:
        boots(at, user=LOCKED_OUT)
    assert f"{LOCKED_OUT} can't become root without a password" in caught.value.message


def test_a_key_of_ones_own_opens_and_the_bakes_does_not(tmp_path: Path) -> None:
    key = tmp_path / "key"
    with sshd(tmp_path, admitted=[private_key(key)]) as at:
        assert boots(at, private_key=str(key))
        with pytest.raises(Away) as caught:
            boots(at)
    assert caught.value.why is Why.LOGIN


def test_a_key_with_a_passphrase_is_refused_and_opens_by_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh-add asks once; here an askpass answers it."""
    key, askpass = tmp_path / "key", tmp_path / "askpass"
    askpass.write_text("#!/bin/sh\necho secret\n")
    askpass.chmod(0o755)
    monkeypatch.setenv("SSH_ASKPASS", str(askpass))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    with sshd(tmp_path, admitted=[private_key(key, passphrase="secret")]) as at:
        with pytest.raises(PlanError, match="has a passphrase") as caught:
            boots(at, private_key=str(key))
        assert "ssh.agent = true" in (caught.value.hint or "")
        with agent(tmp_path, key) as socket:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            assert boots(at, agent=True)


def test_of_an_agents_keys_the_one_that_opens_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    private_key(first)
    with sshd(tmp_path, admitted=[private_key(second)]) as at:
        with agent(tmp_path, first, second) as socket:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            assert boots(at, agent=True)
        with agent(tmp_path / "home", first) as socket, pytest.raises(Away) as caught:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            boots(at, agent=True)
    assert caught.value.why is Why.LOGIN


@pytest.mark.parametrize(("kind", "bits"), [("ed25519", "256"), ("rsa", "2048"), ("ecdsa", "256")])
def test_a_users_certificate_opens_where_its_authority_is_trusted(
    tmp_path: Path, kind: str, bits: str
) -> None:
    authority = private_key(tmp_path / "authority")
    key = tmp_path / "key"
    keygen("-t", kind, "-b", bits, "-N", "", "-f", key)
    keygen("-s", tmp_path / "authority", "-I", "me", "-n", "root", key.with_suffix(".pub"))
    with sshd(tmp_path, admitted=[], authority=authority) as at:
        certificate = str(tmp_path / "key-cert.pub")
        assert boots(at, private_key=str(key), certificate=certificate)
        assert "-CERT" in at.said
        with pytest.raises(Away) as caught:
            boots(at, private_key=str(key))
    assert caught.value.why is Why.LOGIN


def test_a_certificate_beside_the_key_that_nobody_named_is_not_shown(tmp_path: Path) -> None:
    """The machine is told of the key, and knows no authority."""
    private_key(tmp_path / "authority")
    key = tmp_path / "key"
    mine = private_key(key)
    keygen("-s", tmp_path / "authority", "-I", "me", "-n", "root", key.with_suffix(".pub"))
    with sshd(tmp_path, admitted=[mine]) as at:
        assert boots(at, private_key=str(key))
        assert "-CERT" not in at.said


def test_a_certificate_of_another_key_is_a_clear_error(tmp_path: Path) -> None:
    private_key(tmp_path / "authority")
    private_key(tmp_path / "key")
    private_key(tmp_path / "other")
    signed = tmp_path / "other.pub"
    keygen("-s", tmp_path / "authority", "-I", "me", "-n", "root", signed)
    with sshd(tmp_path, admitted=[]) as at, pytest.raises(PlanError, match=r"ssh\.certificate"):
        boots(at, private_key=str(tmp_path / "key"), certificate=str(tmp_path / "other-cert.pub"))


def test_a_bastion_of_ones_own_configuration_leads_there(tmp_path: Path, home: Path) -> None:
    key = tmp_path / "mine"
    mine = private_key(key)
    with sshd(tmp_path / "far") as far, sshd(tmp_path / "near", admitted=[mine]) as near:
        configured(home, near, key)
        assert boots(far, bastion="bastion")
        assert "Accepted publickey for root" in near.said
        assert "Accepted publickey for root" in far.said


def test_a_bastion_with_another_host_key_is_refused_at_once(tmp_path: Path, home: Path) -> None:
    key, old = tmp_path / "mine", new_identity()
    mine = private_key(key)
    with sshd(tmp_path / "far") as far, sshd(tmp_path / "near", admitted=[mine]) as near:
        configured(home, near, key, known=old)
        with pytest.raises(HostKeyRefused) as caught:
            boots(far, bastion="bastion")
    assert old.host.fingerprint in caught.value.expected
    assert near.identity.host.fingerprint in caught.value.seen
    assert "ssh-keygen -R" in (caught.value.hint or "")


def configured(home: Path, bastion: Sshd, key: Path, known: Identity | None = None) -> None:
    config, hosts = home / ".ssh/config", home / ".ssh/known_hosts"
    config.write_text(
        f"Host bastion\n  HostName 127.0.0.1\n  Port {bastion.port}\n  User root\n"
        f"  IdentityFile {key}\n"
    )
    line = public_line((known or bastion.identity).host)
    hosts.write_text(f"[127.0.0.1]:{bastion.port} {line}\n")


def test_a_proxy_command_leads_there_with_host_and_port_filled_in(tmp_path: Path) -> None:
    relay = Path(__file__).parents[1] / "soak/mortal_relay.py"
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    command = shlex.join([sys.executable, str(relay), "%h", "%p", str(deaths), "0"])
    with sshd(tmp_path / "far") as far:
        assert boots(far, proxy_command=command)


def test_a_machine_with_another_host_key_is_refused_and_both_are_told(tmp_path: Path) -> None:
    changed = new_identity()
    with sshd(tmp_path) as at, pytest.raises(HostKeyRefused) as caught:
        boots(at, Identity(host_key=changed.host_key, user_key=at.identity.user_key))
    assert at.identity.host.fingerprint in caught.value.seen
    assert changed.host.fingerprint in caught.value.expected
    assert "Accepted" not in at.said
    assert "something between" in (caught.value.hint or "")


def test_a_port_where_nothing_listens_is_told_from_one_that_says_nothing(tmp_path: Path) -> None:
    nowhere = Sshd(tmp_path, free_port(), new_identity())
    with pytest.raises(Away) as caught:
        boots(nowhere)
    assert caught.value.why is Why.REFUSED


def test_a_silent_connection_is_kept_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words go there while nothing is asked, and it is the same connection afterwards."""
    monkeypatch.setattr("amibuild.communicator.ssh_link.ALIVE_EVERY_S", 0.1)
    with sshd(tmp_path) as at, Proxy("127.0.0.1", at.port) as proxy:
        with linked(at, port=proxy.port) as communicator:
            communicator.try_once()
            before = proxy.passed
            until(
                lambda: Look("silent", proxy.passed > before + 200 or None),
                what="words that keep it alive",
                timeout_s=10,
            )
            communicator.try_once()
        assert at.said.count("Accepted publickey") == 1
