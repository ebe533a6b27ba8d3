"""The machine of a bake over SSH, for somebody who wants a look: with the bake's own keys.

The instance is in the books of a scripted endpoint; behind its address is OpenSSH's own sshd.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from amibuild import bake_machine, proc
from amibuild.aws.ec2 import InstanceFacts
from amibuild.bake_keys import keys_file
from amibuild.bakes import bakes
from amibuild.communicator.ssh_keys import Identity, new_identity
from amibuild.errors import HostError, HostKeyRefused, UsageError, WaitTimeout
from amibuild.journal import BakeStarted, Created, Journal, ResourceKind, journal_path
from amibuild.names import BakeId, InstanceId, client_token
from amibuild.recipe.ssh import Ssh
from amibuild.steps.launch import Purpose
from amibuild.steps.reach_again import reach_again
from tests.contract.conftest import Aws, Start
from tests.contract.place import Place, new_place
from tests.ssh.sshd import Sshd, free_port, needs_sshd, sshd
from tests.terminal import read_to_end
from tests.unit.fakes import STARTED

BAKE = BakeId(STARTED.bake_id)
RELAY = Path(__file__).parents[1] / "soak/mortal_relay.py"


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("far")) as found:
        yield found


def leading_to(port: int, folder: Path) -> Ssh:
    """By a proxy, since nothing answers at the address that is in the books."""
    (folder / "deaths").mkdir(exist_ok=True)
    words = [sys.executable, str(RELAY), "127.0.0.1", str(port), str(folder / "deaths"), "0"]
    return Ssh(user="root", proxy_command=shlex.join(words))


def kept(
    folder: Path,
    instance: str,
    ssh: Ssh | None,
    identity: Identity | None,
    *,
    purpose: Purpose = Purpose.BUILD,
    fresh_over_ssh: bool = False,
) -> Path:
    """The state folder of a bake that was kept with that machine."""
    state_dir = folder / ".amibuild"
    started = {**STARTED.model_dump(), "ssh": ssh, "fresh_over_ssh": fresh_over_ssh}
    with Journal(journal_path(state_dir, BAKE)) as journal:
        journal.write(BakeStarted.model_validate(started))
        journal.write(
            Created(
                kind=ResourceKind.INSTANCE,
                id=instance,
                token=client_token(BAKE, f"{purpose}-0"),
                region=STARTED.region,
            )
        )
    if identity is not None:
        keys = keys_file(state_dir, BAKE)
        keys.parent.mkdir(mode=0o700)
        keys.write_text(identity.model_dump_json())
    return state_dir


@needs_sshd
def test_it_is_reached_with_the_keys_of_the_bake_as_its_journal_says(
    aws: Aws, tmp_path: Path, far: Sshd
) -> None:
    instance = aws.running()
    state_dir = kept(tmp_path, instance, leading_to(far.port, tmp_path), far.identity)
    with closing(bake_machine.find(aws.cloud, state_dir, BAKE, None)) as machine:
        assert machine.live is not None
        ran = machine.run(b"id -u; echo oh >&2; exit 7\n", timeout_s=60)
    assert (ran.exit_code, ran.stdout, ran.stderr) == (7, b"0\n", b"oh\n")


@needs_sshd
def test_a_machine_that_has_another_host_key_by_now_is_refused(
    aws: Aws, tmp_path: Path, far: Sshd
) -> None:
    changed = Identity(host_key=new_identity().host_key, user_key=far.identity.user_key)
    state_dir = kept(tmp_path, aws.running(), leading_to(far.port, tmp_path), changed)
    with pytest.raises(HostKeyRefused, match="another host key") as caught:
        bake_machine.find(aws.cloud, state_dir, BAKE, None)
    assert "a step has made new host keys" in (caught.value.hint or "")


def test_keys_that_are_gone_are_told_and_none_are_made(aws: Aws, tmp_path: Path) -> None:
    state_dir = kept(tmp_path, aws.running(), Ssh(), None)
    with pytest.raises(HostError, match=f"the keys of bake {BAKE} are gone") as caught:
        bake_machine.find(aws.cloud, state_dir, BAKE, None)
    assert "where it was baked" in (caught.value.hint or "")
    assert not keys_file(state_dir, BAKE).exists()


def test_keys_that_are_damaged_are_told(aws: Aws, tmp_path: Path) -> None:
    state_dir = kept(tmp_path, aws.running(), Ssh(), new_identity())
    keys_file(state_dir, BAKE).write_text("{")
    with pytest.raises(HostError, match="can't be read"):
        bake_machine.find(aws.cloud, state_dir, BAKE, None)


def test_a_machine_that_has_gone_is_told_before_its_keys_are_missed(
    aws: Aws, tmp_path: Path
) -> None:
    instance = aws.running()
    state_dir = kept(tmp_path, instance, Ssh(), None)
    aws.ec2.terminate_instances(InstanceIds=[instance])
    with pytest.raises(UsageError, match="has no machine that lives"):
        bake_machine.find(aws.cloud, state_dir, BAKE, None)


@pytest.mark.parametrize("fresh_over_ssh", [True, False])
def test_the_fresh_machine_is_reached_as_it_was_proven(
    aws: Aws, tmp_path: Path, fresh_over_ssh: bool
) -> None:
    """An image that has lost its sshd has the agent."""
    state_dir = kept(
        tmp_path, aws.running(), Ssh(), None, purpose=Purpose.VERIFY, fresh_over_ssh=fresh_over_ssh
    )
    if fresh_over_ssh:
        with pytest.raises(HostError, match="keys"):
            bake_machine.find(aws.cloud, state_dir, BAKE, Purpose.VERIFY)
    else:
        assert bake_machine.find(aws.cloud, state_dir, BAKE, Purpose.VERIFY).live is None


def test_what_a_journal_of_before_says_is_over_run_command(aws: Aws, tmp_path: Path) -> None:
    state_dir = kept(tmp_path, aws.running(), None, None)
    path = journal_path(state_dir, BAKE)
    old = path.read_text().replace('"ssh":null,"fresh_over_ssh":false', '"flow":"bake"')
    path.write_text(old.replace('"flow":"bake",', "", 1))
    assert [one.id for one in bakes(state_dir)] == [BAKE]
    assert bake_machine.find(aws.cloud, state_dir, BAKE, None).live is None


def at_loopback(aws: Aws, port: int) -> InstanceFacts:
    """One of the books, as if it had that address."""
    return InstanceFacts(
        id=InstanceId(aws.running()),
        state="running",
        reason="",
        zone="us-east-1a",
        is_spot=False,
        private_ip="127.0.0.1",
        public_ip="127.0.0.1",
        ssh_port=port,
    )


def test_without_an_sshd_it_is_run_command_where_there_is_an_agent(
    aws: Aws, tmp_path: Path
) -> None:
    told: list[str] = []
    state_dir = kept(tmp_path, aws.running(), Ssh(), new_identity())
    facts = at_loopback(aws, free_port())
    found = bake_machine.by_ssh(aws.cloud, facts, Ssh(), state_dir, BAKE, (), told.append)
    assert (found.id, found.live) == (facts.id, None)
    assert f"no sshd answers on {facts.id}: over Run Command" in told[-1]


class Unheard:
    """A port that drops whoever comes, as a security group does."""

    def __enter__(self) -> int:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=0)
        address = self._server.getsockname()
        self._waiting = [socket.socket() for _ in range(2)]
        for one in self._waiting:
            one.setblocking(False)
            one.connect_ex(address)
        return int(address[1])

    def __exit__(self, *_: object) -> None:
        for one in (self._server, *self._waiting):
            one.close()


@pytest.mark.parametrize(
    ("here", "admits", "hint"),
    [
        ("8.8.4.4", "8.8.8.8/32", "this host has the address 8.8.4.4 by now: aws ec2 authorize-"),
        ("8.8.4.4", "8.8.4.0/24", "admits this host (8.8.4.4) at port 22: see the console log"),
        ("192.168.7.5", "8.8.8.8/32", "this host is behind NAT"),
    ],
)
def test_a_port_that_is_closed_for_this_host_is_told_with_what_opens_it(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, here: str, admits: str, hint: str
) -> None:
    monkeypatch.setattr("amibuild.steps.reach_again.REACH_S", 0)
    monkeypatch.setattr("amibuild.communicator.ssh_link.CONNECT_S", 1)
    monkeypatch.setattr(
        "amibuild.steps.reach_again.source_address", lambda url: ipaddress.IPv4Address(here)
    )
    vpc = aws.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = aws.cloud.ec2.create_security_group("closed", "closed", vpc, {"Name": "closed"})
    aws.cloud.ec2.admit(group, admits, 22)
    told: list[str] = []
    with Unheard() as port, pytest.raises(WaitTimeout) as caught:
        reach_again(aws.cloud, at_loopback(aws, port), Ssh(), new_identity(), group, told.append)
    assert f"{group} admits" in (caught.value.hint or "")
    assert hint in (caught.value.hint or "")
    assert f"not reached at 127.0.0.1:{port} yet" in told[0]


@pytest.mark.parametrize(
    ("age_s", "hint"),
    [(40, "after its start: try again in a minute. Else: is its"), (300, "is its")],
)
def test_one_that_was_started_a_moment_ago_is_said_to_boot(
    start: Start, monkeypatch: pytest.MonkeyPatch, age_s: int, hint: str
) -> None:
    monkeypatch.setattr("amibuild.steps.reach_again.REACH_S", 0)
    aws = start("agent:1=never")
    machine = aws.launch()
    aws.until_state(machine, "running")
    facts = aws.cloud.ec2.instance(machine)
    assert facts.launched is not None
    there = replace(
        facts,
        public_ip="127.0.0.1",
        ssh_port=free_port(),
        launched=facts.launched - timedelta(seconds=age_s),
    )
    with pytest.raises(WaitTimeout) as caught:
        reach_again(aws.cloud, there, Ssh(), new_identity(), None, lambda _: None)
    told = (caught.value.hint or "").partition(" sshd running")[0]
    assert re.sub(r"^it may still boot, \d+ s ", "", told) == hint


@needs_sshd
def test_a_key_that_no_longer_opens_is_told(
    aws: Aws, far: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amibuild.steps.reach_again.REACH_S", 0)
    other = Identity(host_key=far.identity.host_key, user_key=new_identity().user_key)
    facts = at_loopback(aws, far.port)
    with pytest.raises(WaitTimeout) as caught:
        reach_again(aws.cloud, facts, Ssh(user="root"), other, None, lambda _: None)
    assert "the bake came as root with its own key" in (caught.value.hint or "")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, far: Sshd) -> Iterator[Place]:
    """Where a bake over SSH was kept, and the endpoint with its machine runs."""
    place = new_place(tmp_path_factory.mktemp("kept"))
    place.run("local", "up", "--machine", "none")
    kept(place.folder, place.launch(), leading_to(far.port, place.folder), far.identity)
    yield place
    place.run("local", "down")


@needs_sshd
def test_run_shows_what_comes_and_ends_with_the_commands_exit_code(place: Place) -> None:
    done = place.run("run", BAKE, "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.exit_code, done.stdout) == (7, b"out\n")
    assert b"err\n" in done.stderr


@needs_sshd
def test_run_with_json_is_one_object(place: Place) -> None:
    done = place.run("run", BAKE, "--json", "--", "sh", "-c", "echo out; exit 7", check=False)
    said = json.loads(done.stdout)
    assert (done.exit_code, said["exit_code"], said["stdout"]) == (7, 7, "out\n")


@needs_sshd
def test_copy_sends_and_fetches(place: Place, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("what it says")
    there = tmp_path / "there"
    done = place.run("copy", f"{tmp_path}/a file", f"{BAKE}:{there}/")
    assert done.stdout.decode() == f"{there}/a file\n"
    done = place.run("copy", f"{BAKE}:{there}", f"{tmp_path}/back", "--json")
    said = json.loads(done.stdout)
    assert (said["source"], said["path"]) == (str(there), f"{tmp_path}/back")
    assert (tmp_path / "back" / "a file").read_text() == "what it says"
    done = place.run("copy", "a", "b", check=False)
    assert (done.exit_code, done.stdout) == (2, b"")


@needs_sshd
def test_shell_runs_what_is_on_stdin(place: Place) -> None:
    done = place.run("shell", BAKE, stdin=b"cat\nid -u\nexit 3\n", check=False)
    assert (done.exit_code, done.stdout) == (3, b"0\n")


@needs_sshd
def test_shell_on_a_terminal_is_one_there(place: Place) -> None:
    near, far_end = os.openpty()
    words = [sys.executable, "-m", "amibuild.cli.main", "shell", BAKE]
    words += ["--recipe", str(place.folder / "amibuild.toml")]
    env = {"AMIBUILD_DATA_DIR": str(place.folder / "data"), "TERM": "vt100"}
    process = proc.start(words, stdin=far_end, stdout=far_end, stderr=far_end, env=env)
    os.close(far_end)
    os.write(near, b"echo $TERM $(tty) $PWD\nexit 5\n")
    said = read_to_end(near).decode()
    assert process.wait() == 5, said
    assert "vt100 /dev/pts/" in said
