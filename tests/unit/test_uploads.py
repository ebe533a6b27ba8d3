"""What goes to a machine arrives as it was, whole, and only once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amibuild.communicator.base import CommandResult, RemoteJob
from amibuild.communicator.ssh import SshCommunicator
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.errors import CommandFailed
from amibuild.library.step import StepFile
from amibuild.wait import silent
from tests.unit.fakes import FakeClock, ShellSsm
from tests.unit.ssh_server import Machine

Run = Callable[[RemoteJob], CommandResult]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")

LOOK = "cd files; find . -mindepth 1 -printf '%y %m %u:%g %n [%P] [%l]\\0' >$AMIBUILD_RESULT"
LONG = f"{'d' * 200}/{'f' * 200}"
KINDS = (
    (StepFile("files/plain", b"x"), "f 644 root:root 1 [plain] []"),
    (StepFile("files/run", b"x", 0o755), "f 755 root:root 1 [run] []"),
    (StepFile("files/su", b"x", 0o4750), "f 4750 root:root 1 [su] []"),
    (StepFile("files/his", b"x", 0o640, "man:mail"), "f 640 man:mail 1 [his] []"),
    (StepFile("files/dir", b"", 0o2770, "root:mail", folder=True), "d 2770 root:mail 2 [dir] []"),
    (StepFile("files/dir/in", b"x"), "f 644 root:root 1 [dir/in] []"),
    (StepFile("files/to", b"", link="dir/in"), "l 777 root:root 1 [to] [dir/in]"),
    (StepFile("files/-to", b"", link="-n o\nthing"), "l 777 root:root 1 [-to] [-n o\nthing]"),
    (StepFile("files/a b\nc", b"x"), "f 644 root:root 1 [a b\nc] []"),
    (StepFile("files/-rf", b"x"), "f 644 root:root 1 [-rf] []"),
    (StepFile("files/grüße 🎮", b"x"), "f 644 root:root 1 [grüße 🎮] []"),
    (StepFile("files/'$x'\\n\"", b"x"), "f 644 root:root 1 ['$x'\\n\"] []"),
    (StepFile(f"files/{LONG}", b"x"), f"f 644 root:root 1 [{LONG}] []"),
    (StepFile("files/empty", b""), "f 644 root:root 1 [empty] []"),
    (StepFile("files/sub/x", b"x"), "f 644 root:root 1 [sub/x] []"),
)
PARENTS = ("d 755 root:root 2 [sub] []", f"d 755 root:root 2 [{'d' * 200}] []")
MIB = 1024 * 1024


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "run")
    yield made
    made.close()


@pytest.fixture(params=["SSM", "SSH"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    if request.param == "SSM":
        ssm = SsmCommunicator(ShellSsm(tmp_path / "run"), "i-1", clock=FakeClock())
        return lambda job: ssm.run(job, silent)
    ssh = SshCommunicator(request.getfixturevalue("machine").link)
    return lambda job: ssh.run(job, silent)


def files(*names: str, size: int = 10_000) -> tuple[StepFile, ...]:
    return tuple(StepFile(f"files/{name}", os.urandom(size)) for name in names)


def upload(machine: Machine, sent: tuple[StepFile, ...], script: str = "true") -> int:
    """By another process than the one before. The bytes that it took."""
    before = machine.proxy.passed
    link = machine.linked()
    try:
        done = SshCommunicator(link).run(RemoteJob("step", script, 60, sent), silent)
    finally:
        link.close()
    assert done.exit_code == 0, done.log
    return machine.proxy.passed - before


@AS_ROOT
def test_each_kind_arrives_as_it_was(run: Run) -> None:
    done = run(RemoteJob("step", LOOK, 60, tuple(sent for sent, _ in KINDS)))
    assert done.exit_code == 0, done.log
    found = sorted(done.result.decode().split("\0")[:-1])
    assert found == sorted([*(seen for _, seen in KINDS), *PARENTS])


def test_a_hard_link_is_one_file_there(run: Run) -> None:
    two = (StepFile("files/a", b"x" * 5000), StepFile("files/b", b"", same_as="files/a"))
    done = run(
        RemoteJob("step", "stat -c '%h %s' files/a files/b; [ files/a -ef files/b ]", 60, two)
    )
    assert (done.exit_code, done.log) == (0, "2 5000\n2 5000\n")


@pytest.mark.parametrize(
    "parts",
    [
        (b"begin", MIB, b"end"),
        (MIB, b"middle", MIB),
        (b"x" * 4096, 3 * MIB, b"y" * 5000, MIB, b"z"),
        (MIB,),
        (MIB + 5,),
    ],
)
def test_a_file_with_holes_has_them_there(run: Run, parts: tuple[bytes | int, ...]) -> None:
    content = b"".join(bytes(one) if isinstance(one, int) else one for one in parts)
    script = "sha256sum files/holes | cut -c1-64; stat -c '%s %b' files/holes"
    done = run(RemoteJob("step", script, 60, (StepFile("files/holes", content),)))
    digest, size, blocks = done.log.split()
    assert digest == hashlib.sha256(content).hexdigest()
    assert int(size) == len(content)
    assert int(blocks) * 512 < MIB // 2


def test_an_owner_whom_the_machine_does_not_know_ends_the_job_before_it_begins(run: Run) -> None:
    asked = StepFile("files/x", b"x", owner="nobody-here:root")
    with pytest.raises(CommandFailed) as caught:
        run(RemoteJob("step", "touch ran", 60, (asked,)))
    assert "files/x is to belong to nobody-here:root" in "\n".join(caught.value.tail)


@AS_ROOT
def test_equal_files_are_not_sent_again(machine: Machine) -> None:
    sent = files(*map(str, range(50)), "a b\nc", "-rf", "grüße")
    content = {file.path: file.sha256 for file in sent}
    first = upload(machine, sent, "exit 0")
    again = upload(machine, sent, f"[ $(find files -type f | wc -l) -ge {len(sent)} ]")
    assert first > len(sent) * 10_000
    assert again < first / 20
    (work,) = machine.root.glob("step/job-*/work")
    found = {
        f"files/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (work / "files").iterdir()
    }
    assert found == content


@AS_ROOT
def test_only_what_differs_is_sent(machine: Machine) -> None:
    sent = files("a", "b", "c", size=300_000)
    upload(machine, sent)
    other = (*sent[:2], StepFile("files/c", os.urandom(300_000)))
    script = f"echo '{other[2].sha256}  files/c' | sha256sum --check && [ ! -e .has ]"
    assert 300_000 < upload(machine, other, script) < 400_000


@AS_ROOT
@pytest.mark.parametrize(
    "change", ["echo more >>files/a", "chmod 600 files/a", "chown man files/a", "rm files/a"]
)
def test_what_a_script_changed_is_sent_again(machine: Machine, change: str) -> None:
    sent = files("a", "b", size=300_000)
    upload(machine, sent, change)
    as_sent = f"{sent[0].sha256} 644 root"
    script = f'[ "$(sha256sum <files/a | cut -c1-64) $(stat -c "%a %U" files/a)" = "{as_sent}" ]'
    assert 300_000 < upload(machine, sent, script) < 400_000


@AS_ROOT
def test_files_that_were_one_by_the_script_are_two_again(machine: Machine) -> None:
    content = os.urandom(300_000)
    sent = (StepFile("files/a", content), StepFile("files/b", content))
    upload(machine, sent, "ln -f files/a files/b")
    assert upload(machine, sent, "[ ! files/a -ef files/b ]; cmp files/a files/b") < 400_000


@AS_ROOT
def test_a_third_sending_has_what_the_first_brought(machine: Machine) -> None:
    sent = files("a", "b", size=300_000)
    upload(machine, sent)
    upload(machine, sent)
    assert upload(machine, sent) < 50_000


@AS_ROOT
def test_one_that_still_runs_is_ended_before_its_files_are_taken(machine: Machine) -> None:
    sent = files("a", size=300_000)
    left = RemoteJob("step", "while :; do echo more >>files/a; sleep 0.01; done", 60, sent)
    link = machine.linked()
    with SshCommunicator(link).started(left, silent):
        link.close()
        script = f"echo '{sent[0].sha256}  files/a' | sha256sum --check"
        upload(machine, sent, script)


def test_text_is_pressed_and_noise_is_not(machine: Machine) -> None:
    assert upload(machine, (StepFile("files/x", b"a line of text\n" * 100_000),)) < 50_000
    assert upload(machine, (StepFile("files/x", os.urandom(3 * MIB)),)) < 3.1 * MIB


@pytest.mark.parametrize("cut_at", [200_000, 9 * MIB, 16 * MIB])
def test_no_job_begins_with_half_of_its_files(machine: Machine, cut_at: int) -> None:
    sent = files("a", "b", size=8 * MIB)
    ssh = SshCommunicator(machine.link)
    ssh.boot_id()
    machine.proxy.cut_at = machine.proxy.passed + cut_at
    done = ssh.run(RemoteJob("step", "cat files/a files/b | wc -c", 60, sent), silent)
    assert machine.proxy.cut_at == 0, "it was cut"
    assert done.log.strip() == str(16 * MIB)
    assert len(machine.systemd.started) == 1


def test_a_disk_that_is_full_there_is_told_and_not_tried_for_ever(machine: Machine) -> None:
    (machine.systemd.bin / "tar").write_text(
        "#!/bin/sh\nhead -c 100000 >/dev/null\necho 'tar: No space left on device' >&2\nexit 2\n"
    )
    (machine.systemd.bin / "tar").chmod(0o755)
    job = RemoteJob("step", "true", 60, files("a", size=20 * MIB))
    with pytest.raises(CommandFailed) as caught:
        SshCommunicator(machine.link).run(job, silent)
    assert "No space left" in "\n".join(caught.value.tail)
