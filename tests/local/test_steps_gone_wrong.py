"""Steps that go wrong on a real machine: what is told of them, and that the next one runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from amibuild import secret
from amibuild.aws.ssm import Ssm
from amibuild.communicator.base import RemoteJob
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.errors import CommandFailed, StepFailed
from amibuild.library.step import BuildStep, StepKind
from amibuild.local.service import Options, Service
from amibuild.secret import MASK, Secret
from amibuild.steps.provision import StepRun, run_step
from amibuild.wait import silent
from tests.contract.conftest import Aws

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]

VALUE = "kR4-the.token_of+a/bake"


@pytest.fixture(scope="module")
def aws(data_dir: Path) -> Iterator[Aws]:
    service = Service(Options(data_dir, machine="nspawn"))
    key = service.options.key
    try:
        yield Aws(
            service, boto3.Session(key.id, key.secret, region_name="us-east-1"), timeout_s=300
        )
    finally:
        service.close()


@pytest.fixture(scope="module")
def instance(aws: Aws) -> str:
    return aws.running(InstanceType="t3.small")


@pytest.fixture(scope="module")
def communicator(aws: Aws, instance: str) -> SsmCommunicator:
    return SsmCommunicator(aws.cloud.ssm, instance)


def ran(
    communicator: SsmCommunicator,
    logs: Path,
    script: str,
    *,
    timeout_s: int = 300,
    secrets: dict[str, Secret] | None = None,
) -> StepRun:
    step = BuildStep(
        "wrong",
        StepKind.PROVISIONER,
        "Goes wrong.",
        script,
        timeout_s,
        secrets=tuple(secrets or ()),
    )
    return run_step(communicator, step, logs, silent, secrets=secrets)


def test_one_that_hangs_is_ended_and_its_last_words_are_told(
    communicator: SsmCommunicator, tmp_path: Path
) -> None:
    with pytest.raises(CommandFailed, match="did not end within 5 s") as caught:
        ran(communicator, tmp_path, "echo waiting for a friend\nexec sleep 4000", timeout_s=5)
    assert caught.value.tail == ("waiting for a friend",)
    said = ran(communicator, tmp_path, "pgrep -f 'sleep 4000' || echo gone")
    assert said.log.read_text() == "gone\n"


def test_one_that_ends_the_agents_command_goes_on_and_is_picked_up(
    communicator: SsmCommunicator, tmp_path: Path
) -> None:
    """What an agent does that is restarted: everything it runs is killed."""
    command = "systemctl list-units --plain --no-legend 'amibuild-amibuild-*'"
    script = (
        f"echo ran >>/srv/ran\necho before\nset -- $({command})\n"
        'systemctl kill --signal=KILL "$1"\n'
        f'while [ -n "$({command})" ]; do sleep 0.1; done\necho after; exit 7'
    )
    with pytest.raises(StepFailed, match="exit code 7"):
        ran(communicator, tmp_path, script)
    assert (tmp_path / "wrong.log").read_text() == "before\nafter\n"
    assert ran(communicator, tmp_path, "cat /srv/ran; rm /srv/ran").log.read_text() == "ran\n"


class SentTwice(Ssm):
    """As when the answer to SendCommand is lost, and the client sends it again."""

    def send(self, instance_id: str, script: str, *, comment: str, timeout_s: int) -> str:
        super().send(instance_id, script, comment=comment, timeout_s=timeout_s)
        return super().send(instance_id, script, comment=comment, timeout_s=timeout_s)


def test_one_that_arrives_twice_runs_once(
    aws: Aws, instance: str, communicator: SsmCommunicator, tmp_path: Path
) -> None:
    twice = SsmCommunicator(SentTwice(aws.ssm, aws.region), instance)
    said = ran(twice, tmp_path, "echo ran >>/srv/ran; sleep 1; echo done").log.read_text()
    assert said == "done\n"
    assert ran(communicator, tmp_path, "cat /srv/ran; rm /srv/ran").log.read_text() == "ran\n"


def test_one_that_is_left_is_ended_on_the_machine(
    communicator: SsmCommunicator, tmp_path: Path
) -> None:
    job = RemoteJob("left", "trap '' TERM HUP INT; sleep 3000 & wait; sleep 3000", 300)
    with communicator.started(job, silent):
        ran(communicator, tmp_path, "until pgrep -f 'sleep 3[0]00'; do sleep 0.1; done")
    gone = "while pgrep -f 'sleep 3[0]00'; do sleep 0.1; done; echo gone"
    assert ran(communicator, tmp_path, gone).log.read_text().endswith("gone\n")


def test_its_surroundings_are_those_of_a_command(
    communicator: SsmCommunicator, tmp_path: Path
) -> None:
    told = "echo $HOME; umask; readlink /proc/self/fd/0; echo $PATH; cat; env >&2"
    said = ran(communicator, tmp_path, told).log.read_text().splitlines()
    assert said[:3] == ["/root", "0022", "/dev/null"]
    assert "/usr/sbin" in said[3].split(":")


def test_one_that_prints_a_gigabyte_of_anything_ends(
    communicator: SsmCommunicator, tmp_path: Path
) -> None:
    # As on a machine of 4 GB; here it has a part of the host's memory.
    ran(communicator, tmp_path, "mount -o remount,size=400M /run")
    script = "echo begin; head -c 1G /dev/urandom; echo; echo end"
    log = ran(communicator, tmp_path, script).log.read_bytes()
    assert log.startswith(b"begin\n")
    assert log.endswith(b"end\n")
    assert b"bytes left out" in log


def test_on_a_full_disk_the_hint_says_which_setting(
    communicator: SsmCommunicator, tmp_path: Path
) -> None:
    # Root may use what df calls reserved too. Nothing is written: the host's disk is not filled.
    fill = (
        "for size in 512M 16M 1M 64K 4K; do"
        " while fallocate -l $size /srv/filling-$size-$((n++)); do :; done; done 2>/dev/null"
    )
    try:
        with pytest.raises(StepFailed) as caught:
            ran(communicator, tmp_path, f"{fill}\nset -e\nhead -c 1M /dev/urandom >/srv/more")
    finally:
        ran(communicator, tmp_path, "rm -f /srv/filling-* /srv/more")
    assert caught.value.hint == "the disk is full: builder.volume_gib is its size"


def test_with_too_little_memory_the_hint_says_so(
    communicator: SsmCommunicator, tmp_path: Path
) -> None:
    limited = "systemd-run --quiet --pipe --wait -p MemoryMax=64M -p MemorySwapMax=0"
    with pytest.raises(StepFailed) as caught:
        ran(
            communicator, tmp_path, f"{limited} python3 -c 'print(len(bytes(200 << 20)))'; exit 137"
        )
    assert caught.value.hint is not None
    assert "builder.instance_types" in caught.value.hint


def test_while_somebody_installs_packages_the_hint_says_so(
    communicator: SsmCommunicator, tmp_path: Path
) -> None:
    script = (
        "set -e\n"
        "python3 -c 'import fcntl, subprocess, sys\n"
        'lock = open("/var/lib/dpkg/lock-frontend", "w")\n'
        "fcntl.lockf(lock, fcntl.LOCK_EX)\n"
        'sys.exit(subprocess.run(["apt-get", "install", "-y", "hello"]).returncode)\'\n'
    )
    with pytest.raises(StepFailed) as caught:
        ran(communicator, tmp_path, script)
    assert "DPkg::Lock::Timeout" in (caught.value.hint or "")


def test_with_its_mirror_down_the_hint_says_so(
    communicator: SsmCommunicator, tmp_path: Path
) -> None:
    script = (
        "echo 'deb [trusted=yes] http://127.0.0.1:9/debian trixie main' >/run/only.list\n"
        "apt-get -o Dir::Etc::SourceList=/run/only.list -o Dir::Etc::SourceParts=/none "
        "-o Acquire::Retries=0 -o APT::Update::Error-Mode=any update"
    )
    with pytest.raises(StepFailed) as caught:
        ran(communicator, tmp_path, script)
    assert "does not reach its mirror" in (caught.value.hint or "")


def test_a_secret_is_there_for_its_step_and_nowhere_after_it(
    communicator: SsmCommunicator, tmp_path: Path
) -> None:
    try:
        secrets = {"token": Secret("token", VALUE)}
        log = ran(
            communicator,
            tmp_path,
            'echo "got $(cat "$AMIBUILD_SECRETS/token")"; stat -f -c %T "$AMIBUILD_SECRETS"',
            secrets=secrets,
        ).log.read_text()
        assert log == f"got {MASK}\ntmpfs\n"
        search = (
            "grep -rlE 'kR4-[t]he|[t]he.token_of' /run/amibuild /etc /var /root /tmp || echo none"
        )
        assert ran(communicator, tmp_path, search).log.read_text() == "none\n"
    finally:
        secret.forget_all()
