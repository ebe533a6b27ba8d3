"""What a step has mounted below its folder, and not unmounted when it failed, is nobody's to remove
with that folder. The mounts are real, in namespaces of their own."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.communicator import shell, unit
from amibuild.communicator.base import RemoteJob
from amibuild.communicator.shell import Unit
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.library.step import StepFile
from amibuild.local import private
from amibuild.wait import silent
from tests.namespaces import needs_namespaces
from tests.unit.fakes import FakeClock, ShellSsm
from tests.unit.systemd import Systemd

JOB = RemoteJob("step", "cat files/kept", 60, (StepFile("files/kept", b"new\n"),))
EARLIER, AT = Unit("step", "a1"), Unit("step", "b2")


def started() -> tuple[str, bytes]:
    """As over SSM."""
    return unit.start(AT, shell.unpack_inline(AT, shell.payload(JOB)), 60), b""


def taken() -> tuple[str, bytes]:
    """As over SSH: the line that its tar is not pressed, and the tar."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in (("files/kept", b"new\n"), ("environment.sh", b""), ("run.sh", b"")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return f"set -eu\n{unit.take(AT, shell.owners(JOB))}", b"\n" + packed.getvalue()


def stopped() -> tuple[str, bytes]:
    return unit.stop(EARLIER, closed=True), b""


class Machine:
    """One on which a step failed, with mounts below its working folder."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "run"
        self.work = self.root / "step" / "job-a1" / "work"
        self.share = folder / "a share"
        self.systemd = Systemd(folder / "systemd")
        (self.work / "files" / "a \\ mount").mkdir(parents=True)
        (self.work / "files" / "kept").write_text("old\n")
        (self.share / "in" / "it").mkdir(parents=True)
        (self.share / "theirs").write_text("for years")

    def after(self, mounts: str, script: str, stdin: bytes) -> proc.Finished:
        words = [str(self.work / "files" / "a \\ mount"), str(self.share)]
        here = f"set -eu\n{mounts}{self.systemd.path}" + script.replace(shell.WORK, str(self.root))
        return private.run(["sh", "-c", here, "sh", *words], stdin=stdin, check=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@needs_namespaces
@pytest.mark.parametrize("sent", [started, taken, stopped])
@pytest.mark.parametrize(
    "mounts",
    [
        'mount --bind "$2" "$1"\n',
        'mount --bind "$2" "$1"\nmount -t tmpfs none "$1/in"\nmount --bind "$2" "$1"\n',
        'mount -t tmpfs none "$1"\nmkdir "$1/in"\nmount --bind "$2" "$1/in"\n',
    ],
)
def test_what_a_step_has_mounted_is_not_removed_with_its_folder(
    machine: Machine, sent: object, mounts: str
) -> None:
    assert callable(sent)
    done = machine.after(mounts, *sent())
    assert done.exit_code == 0, done.stderr
    assert (machine.share / "theirs").read_text() == "for years"
    assert (machine.share / "in" / "it").is_dir()
    left = sorted(path.name for path in machine.work.parent.iterdir())
    assert left == ["began"]


@needs_namespaces
def test_a_mount_whose_name_ends_in_a_line_break_is_unmounted_too(machine: Machine) -> None:
    done = machine.after('mkdir "$1/x\n"\nmount --bind "$2" "$1/x\n"\n', *stopped())
    assert done.exit_code == 0, done.stderr
    assert (machine.share / "theirs").read_text() == "for years"


@needs_namespaces
@pytest.mark.parametrize("strict", ["set +e\n", ""], ids=["stop", "start"])
def test_one_that_can_not_be_unmounted_is_tried_once_and_nothing_is_removed(
    machine: Machine, strict: str
) -> None:
    """The caller's shell may have no `set -e`."""
    refused = "umount() { tries=${tries-}x; [ ${#tries} -lt 9 ] || exit 99; return 1; }\n"
    done = machine.after(f'mount --bind "$2" "$1"\n{refused}{strict}', *stopped())
    assert done.exit_code == 1
    assert (machine.share / "theirs").read_text() == "for years"


def test_a_step_with_a_file_of_the_marks_name_runs_again(tmp_path: Path) -> None:
    ssm = ShellSsm(tmp_path / "run")
    job = RemoteJob("step", "echo ran", 60, (StepFile("files/began", b"x"),))
    for _ in range(2):
        done = SsmCommunicator(ssm, "i-1", clock=FakeClock()).run(job, silent)
        assert (done.exit_code, done.log) == (0, "ran\n")
