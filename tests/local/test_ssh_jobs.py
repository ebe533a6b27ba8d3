"""Jobs over SSH on an nspawn machine: Debian's own OpenSSH and systemd at the other end."""

from __future__ import annotations

import hashlib
import os
import sys
import tty
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.aws.ssm import Ssm
from amibuild.communicator.base import Discreet, RemoteJob
from amibuild.communicator.said import said_since
from amibuild.communicator.ssh import SshCommunicator
from amibuild.communicator.ssh_keys import Identity, login, new_identity, public_line
from amibuild.communicator.ssh_link import Link, Place
from amibuild.communicator.ssh_live import NOBODY_READS, Live, Terminal
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.communicator.trees import fetch_tree, send_tree
from amibuild.errors import CommandFailed, HostKeyRefused
from amibuild.library.bootstrap import with_ssh
from amibuild.library.step import StepFile
from amibuild.recipe.ssh import Ssh
from amibuild.secret import Secret
from amibuild.steps.reboot import reboot
from amibuild.wait import Look, SystemClock, silent, until
from tests.local.clients import Here
from tests.local.tcp_proxy import Proxy
from tests.terminal import read_to_end

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]
SETTINGS = Ssh()
NASTY = "a'b\"c $HOME `id` \\ \n EOF\nAMIBUILD\n"


@pytest.fixture(scope="module")
def identity() -> Identity:
    return new_identity()


@pytest.fixture(scope="module")
def instance(here: Here, identity: Identity) -> Iterator[str]:
    """One that was launched with the keys."""
    user_data = with_ssh(
        b"#!/bin/sh\n",
        host_key=identity.host_key,
        host_public=public_line(identity.host),
        admitted=[public_line(login(SETTINGS, identity).key or identity.user)],
        root=False,
    )
    instance = here.launch(UserData=user_data.decode())
    here.ec2.get_waiter("instance_running").wait(InstanceIds=[instance])
    yield instance
    here.ec2.terminate_instances(InstanceIds=[instance])


@pytest.fixture(scope="module")
def machine(here: Here, instance: str) -> str:
    """Its address."""
    found = here.ec2.describe_instances(InstanceIds=[instance])
    return str(found["Reservations"][0]["Instances"][0]["PrivateIpAddress"])


@pytest.fixture
def proxy(machine: str) -> Iterator[Proxy]:
    with Proxy(machine, 22) as proxy:
        yield proxy


@pytest.fixture
def ssh(proxy: Proxy, identity: Identity) -> Iterator[SshCommunicator]:
    link = Link(Place("127.0.0.1", proxy.port, SETTINGS), identity, SystemClock())
    with closing(link):
        communicator = SshCommunicator(link)
        communicator.boot_id(timeout_s=120)  # sshd may not have begun yet
        yield communicator


def test_output_exit_code_result_parameters_and_files(ssh: SshCommunicator) -> None:
    content = bytes(range(256))
    script = (
        "id -u; echo err >&2; stat -c %a files/x; env | grep -c SUDO_; "
        'printf %s "$PARAM" >"$AMIBUILD_RESULT"; cat files/x >>"$AMIBUILD_RESULT"; exit 7'
    )
    job = RemoteJob(
        "step", script, 60, (StepFile("files/x", content, 0o755),), environment={"PARAM": NASTY}
    )
    done = ssh.run(job, silent)
    assert (done.exit_code, done.log) == (7, "0\nerr\n755\n0\n")
    assert done.result == NASTY.encode() + content


def test_a_large_payload_and_a_long_log_are_one_stream_each(ssh: SshCommunicator) -> None:
    content = os.urandom(3_000_000)
    job = RemoteJob("step", "sha256sum x; base64 x | head -c 500000", 60, (StepFile("x", content),))
    done = ssh.run(job, silent)
    assert done.log.startswith(hashlib.sha256(content).hexdigest())
    assert len(done.log) > 490_000


def test_a_file_that_is_equal_already_is_not_sent_again(ssh: SshCommunicator, proxy: Proxy) -> None:
    files = tuple(StepFile(f"files/{name}", os.urandom(400_000)) for name in ("a b\nc", "-rf", "ü"))
    sums = "cat files/* | wc -c"
    sent = []
    for _ in range(2):
        before = proxy.passed
        assert ssh.run(RemoteJob("equal", sums, 60, files), silent).log == "1200000\n"
        sent.append(proxy.passed - before)
    assert sent[0] > 1_200_000
    assert sent[1] < 50_000


def test_each_kind_of_file_arrives_as_it_was(ssh: SshCommunicator) -> None:
    files = (
        StepFile("files/his", b"x" * 5000, 0o4750, "man:mail"),
        StepFile("files/second", b"", same_as="files/his"),
        StepFile("files/to", b"", link="a b\n"),
        StepFile("files/holes", b"begin" + bytes(5_000_000) + b"end"),
        StepFile("files/dir", b"", 0o2770, "root:mail", folder=True),
    )
    look = "stat -c '%F %a %U:%G %h %s' files/his files/second files/dir; readlink files/to; "
    look += "sha256sum files/holes | cut -c1-64; [ $(stat -c %b files/holes) -lt 100 ]"
    done = ssh.run(RemoteJob("kinds", look, 60, files), silent)
    assert (done.exit_code, done.log.splitlines()) == (
        0,
        [
            "regular file 4750 man:mail 2 5000",
            "regular file 4750 man:mail 2 5000",
            "directory 2770 root:mail 2 40",
            "a b",
            "",
            files[3].sha256,
        ],
    )


def test_a_tree_comes_there_and_back(ssh: SshCommunicator, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub dir").mkdir(parents=True)
    (tree / "sub dir" / "-n o\nise").write_bytes(os.urandom(2_000_000))
    (tree / "to").symlink_to("sub dir")
    os.link(tree / "sub dir" / "-n o\nise", tree / "second")
    with (tree / "holes").open("wb") as file:
        file.truncate(30_000_000)
    (tree / "holes").chmod(0o640)
    send_tree(ssh, tree, "/var/tmp/there")
    fetch_tree(ssh, "/var/tmp/there", tmp_path)
    look = "find . -printf '%y %m %n [%P] [%l]\\0' | sort -z; "
    look += "find . -type f -exec sha256sum -bz {} + | sort -z"
    found = [proc.run(["sh", "-c", look], cwd=one).stdout for one in (tree, tmp_path / "there")]
    assert found[0] == found[1]
    assert (tmp_path / "there" / "holes").stat().st_blocks < 100


def test_secrets_are_there_while_the_job_runs_and_nowhere_in_what_it_says(
    ssh: SshCommunicator,
) -> None:
    secret = Secret("token", "correct-horse-battery-staple")
    script = 'cat "$AMIBUILD_SECRETS/token"; cp "$AMIBUILD_SECRETS/token" "$AMIBUILD_RESULT"'
    done = ssh.run(RemoteJob("step", script, 60, secrets={"token": secret}), silent)
    assert done.result == b"correct-horse-battery-staple"
    assert done.log == "***"
    left = ssh.run(
        RemoteJob("look", "ls -d /run/amibuild/step/*/{secrets,key} || true", 60), silent
    )
    assert left.log.count("No such file") == 2
    later = Discreet(ssh).run(RemoteJob("later", "echo hello; exit 3", 60), silent)
    assert (later.exit_code, later.log) == (3, "hello\n")
    closed = "test -e /run/amibuild/later/*/reader.pem"
    assert ssh.run(RemoteJob("look", closed, 60), silent).exit_code == 0


def test_a_time_out_ends_the_job_there(ssh: SshCommunicator) -> None:
    with pytest.raises(CommandFailed, match="did not end within 1 s") as caught:
        ssh.run(RemoteJob("slow", "echo began; sleep 987", 1), silent)
    assert caught.value.tail == ("began",)
    assert ssh.run(RemoteJob("look", "pgrep -f 'sleep 98[7]' || echo none", 60), silent).log == (
        "none\n"
    )


def test_a_job_that_is_left_is_stopped_there(ssh: SshCommunicator) -> None:
    with ssh.started(RemoteJob("left", "sleep 986", 60), silent):
        pass
    assert ssh.run(RemoteJob("look", "pgrep -f 'sleep 98[6]' || echo none", 60), silent).log == (
        "none\n"
    )


def test_jobs_run_beside_each_other(ssh: SshCommunicator) -> None:
    with ssh.started(RemoteJob("long", "sleep 1; echo long", 60), silent) as its_end:
        assert ssh.run(RemoteJob("short", "echo short", 60), silent).log == "short\n"
        assert its_end(silent).log == "long\n"


def test_another_host_key_is_refused_and_both_are_told(proxy: Proxy, identity: Identity) -> None:
    other = Identity(host_key=new_identity().host_key, user_key=identity.user_key)
    link = Link(Place("127.0.0.1", proxy.port, SETTINGS), other, SystemClock())
    with closing(link), pytest.raises(HostKeyRefused) as caught:
        SshCommunicator(link).boot_id(timeout_s=5)
    assert identity.host.fingerprint in caught.value.seen
    assert other.host.fingerprint in caught.value.expected


def test_a_job_whose_connection_is_cut_goes_on_and_runs_once(
    ssh: SshCommunicator, proxy: Proxy
) -> None:
    script = "date +%N >>/var/tmp/cut; sleep 2; echo end; wc -l </var/tmp/cut"
    with ssh.started(RemoteJob("cut", script, 60), silent) as its_end:
        proxy.shut(True)
        proxy.cut()
        until(lambda: Look("running", bool(proxy) or None), what="a moment", timeout_s=5)
        proxy.shut(False)
        assert its_end(silent).log == "end\n1\n"


def test_a_payload_that_is_cut_on_its_way_is_sent_again(ssh: SshCommunicator, proxy: Proxy) -> None:
    content = os.urandom(8_000_000)
    before = proxy.passed
    cut: list[int] = []

    def watch(_: object) -> None:
        if not cut:
            cut.append(proxy.passed - before)
            proxy.cut()

    job = RemoteJob("big", "sha256sum x", 60, (StepFile("x", content),))
    done = ssh.run(job, watch)
    assert done.log.startswith(hashlib.sha256(content).hexdigest())


def test_a_connection_that_says_nothing_more_is_given_up(
    ssh: SshCommunicator, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amibuild.communicator.ssh_link.ALIVE_EVERY_S", 0.2)
    monkeypatch.setattr("amibuild.communicator.ssh_link.SILENCE_S", 1)
    with ssh.started(RemoteJob("silent", "sleep 1; echo end", 60), silent) as its_end:
        proxy.be_silent()
        assert its_end(silent).log == "end\n"


@pytest.mark.parametrize("over", ["SSH", "SSM"])
def test_after_a_reboot_jobs_run_on_the_next_boot(
    ssh: SshCommunicator, here: Here, instance: str, over: str
) -> None:
    before = ssh.boot_id()
    ssm = SsmCommunicator(Ssm(here.ssm, "us-east-1"), instance)
    reboot(ssh if over == "SSH" else ssm, timeout_s=300, observer=silent)
    assert ssh.boot_id(timeout_s=120) != before


def test_a_job_that_a_reboot_ended_is_told_so_and_not_begun_again(ssh: SshCommunicator) -> None:
    script = "echo ran >>/var/tmp/before; systemctl reboot; sleep 300"
    with pytest.raises(CommandFailed, match="rebooted"):
        ssh.run(RemoteJob("reboots", script, 200), silent)
    assert ssh.run(RemoteJob("look", "wc -l </var/tmp/before", 120), silent).log == "1\n"


def test_what_a_job_says_is_heard_while_it_goes_on(ssh: SshCommunicator) -> None:
    with ssh.started(RemoteJob("talks", "echo said; sleep 60", 60), silent):
        until(
            lambda: Look("silent", said_since(ssh, "talks", 0).text == b"said\n" or None),
            what="what it says",
            timeout_s=30,
        )


def test_a_command_that_somebody_looks_at_is_a_unit_and_ends_with_its_reader(
    ssh: SshCommunicator,
) -> None:
    live, said = Live(ssh.link), bytearray()

    def hear(chunk: bytes) -> bool:
        said.extend(chunk)
        return b"began" not in chunk

    script = (
        b"id -u; systemctl is-active $(cut -d/ -f3 /proc/self/cgroup); pwd; echo oh >&2; exit 7"
    )
    assert live.run(script, timeout_s=60, stdout=hear, stderr=hear) == 7
    assert sorted(said.split()) == [b"/root", b"0", b"active", b"oh"]
    script = b"setsid sleep 985 & echo began; wait"
    assert live.run(script, timeout_s=60, stdout=hear, stderr=hear) == NOBODY_READS
    left = RemoteJob("look", "pgrep -f 'sleep 98[5]' || echo none; ls -A /run/amibuild/live", 60)
    assert ssh.run(left, silent).log == "none\n"


def test_a_terminal_there_is_roots_and_tells_its_exit_code(ssh: SshCommunicator) -> None:
    near, far = os.openpty()
    resized, resize = os.pipe()
    tty.setraw(far)
    os.write(near, b"echo $TERM $(id -u) $(tty) $(stty size) $HISTFILE\nexit 5\n")
    terminal = Terminal(far, far, resized, lambda: (91, 33), "vt100")
    assert Live(ssh.link).terminal(terminal) == 5
    for fd in (far, resized, resize):
        os.close(fd)
    assert b"vt100 0 /dev/pts/" in (said := read_to_end(near))
    assert b"33 91 /dev/null" in said


def test_a_proxy_command_that_ends_is_seen_at_once_and_run_again(
    machine: str, identity: Identity, tmp_path: Path
) -> None:
    """Not by half a minute of silence: that would be longer than the job may take."""
    relay = Path(__file__).parents[1] / "soak/mortal_relay.py"
    command = f"{sys.executable} {relay} %h %p {tmp_path} 3"
    link = Link(Place(machine, 22, Ssh(proxy_command=command)), identity, SystemClock())
    with closing(link):
        done = SshCommunicator(link).run(RemoteJob("long", "sleep 8; echo end", 20), silent)
    assert done.log == "end\n"
    assert len(list(tmp_path.iterdir())) > 0
