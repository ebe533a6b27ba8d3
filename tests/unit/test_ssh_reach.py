"""Before a machine is reached over SSH: its keys, who may come in, and how it is proven."""

from __future__ import annotations

import email
import ipaddress
import json
import stat
from pathlib import Path

import paramiko
import pytest

from amibuild import proc
from amibuild.aws.session import Cloud
from amibuild.communicator import ssh_keys
from amibuild.communicator.ssh_link import Known, Pinned
from amibuild.errors import HostError, HostKeyRefused, PlanError
from amibuild.library.bootstrap import LIMIT_BYTES, with_ssh
from amibuild.names import EndpointAccess
from amibuild.recipe.model import Recipe
from amibuild.recipe.ssh import Ssh
from amibuild.steps.access import Admission
from amibuild.steps.reach import admission, is_proven_over_ssh, ways
from tests.contract.builder import new_project
from tests.unit.fakes import STARTED

IDENTITY = ssh_keys.new_identity()


def recipe(**tables: object) -> Recipe:
    asked = {"image": {"name": "game-host"}, "builder": {"communicator": "ssh"}, **tables}
    return Recipe.model_validate(asked)


def cloud(url: str = "http://127.0.0.1:4566") -> Cloud:
    return Cloud(region="us-east-1", access=EndpointAccess(url, "AKIAIOSFODNN7EXAMPLE", "x"))


def test_the_machine_is_told_its_host_key_and_who_may_come_in() -> None:
    script = b"#!/usr/bin/env bash\necho hello\n"
    told = email.message_from_bytes(
        with_ssh(
            script, host_key="PRIVATE\n", host_public="ssh-ed25519 A", admitted=["k"], root=False
        )
    )
    _, config, body = told.walk()
    assert config.get_content_type() == "text/cloud-config"
    first, _, rest = str(config.get_payload()).partition("\n")
    assert first == "#cloud-config"
    assert json.loads(rest) == {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": "PRIVATE\n", "ed25519_public": "ssh-ed25519 A"},
        "ssh_authorized_keys": ["k"],
    }
    assert body.get_content_type() == "text/x-shellscript"
    assert body.get_payload(decode=True) == script


def test_user_data_that_ec2_would_not_take_is_refused() -> None:
    with pytest.raises(PlanError, match="EC2 takes 16384"):
        with_ssh(b"#" * LIMIT_BYTES, host_key="", host_public="", admitted=[], root=False)


def test_the_keys_of_a_bake_are_kept_for_its_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "ssh" / "bake"
    first = ssh_keys.kept_identity(file)
    assert ssh_keys.kept_identity(file) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert first.host_key != first.user_key


def test_no_keys_are_made_for_a_machine_that_has_some(tmp_path: Path) -> None:
    file = tmp_path / STARTED.bake_id
    with pytest.raises(HostError, match=f"the keys of bake {STARTED.bake_id} are gone"):
        ways(cloud(), recipe(), (), None, file, machine="i-1")
    assert not file.exists()
    made = ways(cloud(), recipe(), (), None, file).telling
    assert ways(cloud(), recipe(), (), None, file, machine="i-1").telling == made


@pytest.mark.parametrize("content", ["{", "{}", "no JSON"])
def test_keys_that_are_damaged_are_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / STARTED.bake_id
    file.write_text(content)
    with pytest.raises(HostError, match=f"the keys of bake {STARTED.bake_id} can't be read"):
        ssh_keys.kept_identity(file)
    assert file.read_text() == content


def test_what_is_looked_for_on_the_disk_is_another_line_for_each_key() -> None:
    other = ssh_keys.new_identity()
    assert len({*IDENTITY.telling.values(), *other.telling.values()}) == 4


def written(folder: Path) -> Path:
    file = folder / "key"
    file.write_text(ssh_keys.new_identity().user_key)
    return file


def test_a_key_of_ones_own_is_used_and_its_public_half_told(tmp_path: Path) -> None:
    settings = Ssh(private_key=str(written(tmp_path)), user="builder")
    who = ssh_keys.login(settings, IDENTITY)
    assert who.user == "builder"
    assert who.key is not None
    assert ssh_keys.admitted(settings, who) == (ssh_keys.public_line(who.key),)
    assert who.key != IDENTITY.user


@pytest.mark.parametrize("content", [None, "no key at all\n"])
def test_a_key_that_cannot_be_read_is_a_clear_error(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    with pytest.raises(PlanError, match=f"ssh.private_key: {file} can't be read"):
        ssh_keys.login(Ssh(private_key=str(file)), IDENTITY)


def test_a_key_with_a_passphrase_is_for_the_agent(tmp_path: Path) -> None:
    file = tmp_path / "key"
    proc.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", file])
    with pytest.raises(PlanError, match="has a passphrase") as caught:
        ssh_keys.login(Ssh(private_key=str(file)), IDENTITY)
    assert "ssh.agent = true" in (caught.value.hint or "")


def test_another_host_key_is_refused_and_both_are_told() -> None:
    seen = ssh_keys.new_identity().host
    Pinned(IDENTITY.host).missing_host_key(paramiko.SSHClient(), "10.0.0.1", IDENTITY.host)
    with pytest.raises(HostKeyRefused) as caught:
        Pinned(IDENTITY.host).missing_host_key(paramiko.SSHClient(), "10.0.0.1", seen)
    assert f"ssh-ed25519 {seen.fingerprint} was seen" in caught.value.message
    assert f"ssh-ed25519 {IDENTITY.host.fingerprint} was expected" in caught.value.message


def test_a_bastion_that_nobody_knows_is_refused() -> None:
    with pytest.raises(HostKeyRefused, match="known_hosts"):
        Known().missing_host_key(paramiko.SSHClient(), "bastion", IDENTITY.host)


def test_nobody_is_admitted_over_ssm() -> None:
    assert admission(cloud(), recipe(builder={"communicator": "ssm"})) is None


def test_this_host_alone_is_admitted_at_the_port_of_the_recipe() -> None:
    assert admission(cloud(), recipe(ssh={"port": 2222})) == Admission("127.0.0.1/32", 2222)


def test_the_recipe_says_who_is_admitted() -> None:
    asked = recipe(aws={"source_cidr": "203.0.113.0/24"}, ssh={"bastion": "bastion"})
    assert admission(cloud(), asked) == Admission("203.0.113.0/24", 22)


@pytest.mark.parametrize("way", [{"bastion": "bastion"}, {"proxy_command": "nc %h %p"}])
def test_who_comes_through_another_host_says_which(way: dict[str, str]) -> None:
    with pytest.raises(PlanError, match=r"aws\.source_cidr: not set"):
        admission(cloud(), recipe(ssh=way))


def test_an_address_behind_nat_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = ipaddress.IPv4Address("192.168.7.5")
    monkeypatch.setattr("amibuild.steps.reach.source_address", lambda url: behind)
    with pytest.raises(PlanError, match=r"192\.168\.7\.5.*behind NAT") as caught:
        admission(cloud(), recipe())
    assert "your public address" in (caught.value.hint or "")
    inside = admission(cloud(), recipe(ssh={"address": "private"}))
    assert inside == Admission("192.168.7.5/32", 22)


@pytest.mark.parametrize(
    ("asked", "over_ssh"),
    [
        (('provision.steps=["os"]',), True),
        (('provision.steps=["os", "hardening"]',), False),
        (('provision.steps=["os", "hardening"]', "provision.params.hardening.ssh=true"), True),
        (('provision.steps=["os"]', "builder.communicator=ssm"), False),
    ],
)
def test_the_image_is_proven_over_ssh_where_it_keeps_sshd(
    tmp_path: Path, asked: tuple[str, ...], over_ssh: bool
) -> None:
    base = ("builder.communicator=ssh", "provision.services=[]", "provision.params={}")
    project = new_project(tmp_path, (*base, *asked))
    assert is_proven_over_ssh(project.recipe, project.steps) is over_ssh
