"""A tree of files comes to a machine and back as it was."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.communicator.packing import Content
from amibuild.communicator.ssh import SshCommunicator
from amibuild.communicator.trees import fetch_tree, send_tree, unpack
from amibuild.errors import HostError, UsageError
from tests.unit.ssh_server import Machine

MIB = 1024 * 1024


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "run")
    yield made
    made.close()


@pytest.fixture
def ssh(machine: Machine) -> SshCommunicator:
    return SshCommunicator(machine.link)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "here" / "a tree\n"
    for name in ("plain", "a b\nc", "-rf", "grüße 🎮", "'$x'\\n\"", f"{'d' * 200}/{'f' * 200}"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (top / "empty").touch()
    (top / "run").write_bytes(os.urandom(3 * MIB))
    (top / "run").chmod(0o4711)
    (top / "to").symlink_to("../gone/-n o\n")
    os.link(top / "run", top / "second")
    with (top / "holes").open("wb") as file:
        file.seek(20 * MIB)
        file.write(b"end")
        file.truncate(40 * MIB)
    (top / "sealed").mkdir()
    (top / "sealed" / "in").write_text("in")
    if os.geteuid() == 0:
        os.chown(top / "plain", 6, 8)
        os.chown(top / "to", 6, 8, follow_symlinks=False)
        os.chown(top / "empty", 61_234, 54_321)  # nobody of that name is here, or there
    (top / "sealed").chmod(0o2555)
    for path in top.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    return top


def listed(folder: Path) -> bytes:
    script = "find . -mindepth 1 -printf '%y %m %U:%G %n %Ts [%P] [%l]\\0' | sort -z; "
    script += "find . -type f -exec sha256sum -bz {} + | sort -z"
    return proc.run(["sh", "-c", script], cwd=folder).stdout


def test_it_is_there_as_it_is_here(ssh: SshCommunicator, tree: Path, tmp_path: Path) -> None:
    there = tmp_path / "there" / "-odd\n"
    send_tree(ssh, tree, str(there))
    assert listed(there) == listed(tree)
    assert (there / "holes").stat().st_blocks * 512 < MIB


def test_it_comes_back_as_it_is_there(ssh: SshCommunicator, tree: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    fetch_tree(ssh, str(tree), back)
    assert listed(back / tree.name) == listed(tree)
    assert (back / tree.name / "holes").stat().st_blocks * 512 < MIB


def test_one_file_is_a_tree_too(ssh: SshCommunicator, tree: Path, tmp_path: Path) -> None:
    send_tree(ssh, tree / "plain", str(tmp_path / "there" / "other"))
    assert (tmp_path / "there" / "other").read_text() == "plain"
    fetch_tree(ssh, str(tree / "-rf"), tmp_path)
    assert (tmp_path / "-rf").read_text() == "-rf"


def test_it_may_come_a_second_time(ssh: SshCommunicator, tree: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    for _ in range(2):
        send_tree(ssh, tree, str(there))
        fetch_tree(ssh, str(there), back)
    assert listed(back / "there") == listed(tree)


@pytest.mark.parametrize("cut_at", [MIB, 3 * MIB])
def test_one_that_is_cut_on_its_way_is_sent_again(
    machine: Machine, ssh: SshCommunicator, tree: Path, tmp_path: Path, cut_at: int
) -> None:
    ssh.boot_id()
    machine.proxy.cut_at = machine.proxy.passed + cut_at
    send_tree(ssh, tree, str(tmp_path / "there"))
    assert machine.proxy.cut_at == 0, "it was cut"
    assert listed(tmp_path / "there") == listed(tree)


def test_a_folder_there_that_is_a_link_stays_one(ssh: SshCommunicator, tmp_path: Path) -> None:
    """As /bin is on a machine."""
    (tmp_path / "here" / "bin").mkdir(parents=True)
    (tmp_path / "here" / "bin" / "new").write_text("new")
    (tmp_path / "there" / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "there" / "bin").symlink_to("usr/bin")
    send_tree(ssh, tmp_path / "here" / "bin", str(tmp_path / "there" / "bin"))
    assert (tmp_path / "there" / "bin").is_symlink()
    assert (tmp_path / "there" / "usr" / "bin" / "new").read_text() == "new"


def test_a_file_that_gets_shorter_meanwhile_is_told(
    ssh: SshCommunicator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that is rotated by copytruncate."""
    log = tmp_path / "log"
    log.write_bytes(os.urandom(3 * MIB))

    def then_shorter(content: Content) -> None:
        log.write_bytes(b"new")

    monkeypatch.setattr("amibuild.communicator.packing.segments", then_shorter)
    with pytest.raises(HostError, match="log became shorter while it was sent"):
        send_tree(ssh, log, str(tmp_path / "there"))


def test_what_this_host_can_not_take_is_told_at_once(
    machine: Machine, ssh: SshCommunicator, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "back" / "plain").mkdir(parents=True)
    with pytest.raises(HostError, match="plain: Is a directory"):
        fetch_tree(ssh, str(tree / "plain"), tmp_path / "back")
    assert len(machine.commands) == 1, "it is no cut, after which it would be fetched again"


def test_what_does_not_shrink_is_not_pressed_and_text_is(
    machine: Machine, ssh: SshCommunicator, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"a line of text\n" * 400_000)
    ssh.boot_id()
    before = machine.proxy.passed
    send_tree(ssh, text, str(tmp_path / "there"))
    assert machine.proxy.passed - before < 200_000


def test_a_pipe_is_refused_before_anything_is_sent(
    machine: Machine, ssh: SshCommunicator, tree: Path
) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(UsageError, match="pipe is a pipe") as refused:
        send_tree(ssh, tree, "/nowhere")
    assert refused.value.exit_code == 2
    assert machine.commands == []


def test_what_is_not_there_is_told(ssh: SshCommunicator, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no .*/gone on the machine"):
        fetch_tree(ssh, str(tmp_path / "gone"), tmp_path / "back")


def test_files_of_the_kernel_are_refused_since_they_seem_empty(
    ssh: SshCommunicator, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="/proc/meminfo is the kernel's") as refused:
        fetch_tree(ssh, "/proc/meminfo", tmp_path / "back")
    assert "-- cat" in (refused.value.hint or "")


def test_a_device_there_is_refused_by_its_name(ssh: SshCommunicator, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    os.mkfifo(tmp_path / "there" / "pipe")
    with pytest.raises(UsageError, match=r"'\./there/pipe' is a pipe or a device"):
        fetch_tree(ssh, str(tmp_path / "there"), tmp_path / "back")


def of(*members: tuple[str, bytes, str]) -> io.BytesIO:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, kind, linkname in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, linkname
            tar.addfile(member)
    made.seek(0)
    return made


LINK, HARD, FILE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.REGTYPE


@pytest.mark.parametrize(
    "members",
    [
        [("../out", FILE, "")],
        [("/tmp/amibuild-out", FILE, "")],
        [("a/../../out", FILE, "")],
        [("a", LINK, ".."), ("a/out", FILE, "")],
        [("a", LINK, ".."), ("a", tarfile.DIRTYPE, "")],
        [("a", HARD, "../out")],
        [("a", LINK, "../../out"), ("b", HARD, "a")],
        [("a", LINK, ".."), ("b", HARD, "a/out")],
        [("a", tarfile.CHRTYPE, "")],
        [("a", tarfile.FIFOTYPE, "")],
    ],
)
def test_what_would_be_written_elsewhere_is_refused(
    tmp_path: Path, members: list[tuple[str, bytes, str]]
) -> None:
    with pytest.raises(UsageError):
        unpack(of(*members), tmp_path / "into" / "it")
    assert {path.name for path in tmp_path.rglob("*")} <= {"into", "it", "a"}


def test_a_link_is_replaced_and_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    unpack(of(("a", LINK, "../kept"), ("a", FILE, "")), tmp_path / "into")
    assert (tmp_path / "kept").read_text() == "kept"
    assert not (tmp_path / "into" / "a").is_symlink()


def cut(whole: bytes) -> bytes:
    return whole[:600]


def damaged(whole: bytes) -> bytes:
    return whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]


def test_half_a_tar_is_no_tree(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        member = tarfile.TarInfo("a")
        member.size = 1000
        tar.addfile(member, io.BytesIO(bytes(1000)))
    whole = made.getvalue()
    changes: tuple[Callable[[bytes], bytes], ...] = (cut, damaged, lambda _: b"")
    for change in changes:
        with pytest.raises(OSError, match="no whole tar"):
            unpack(io.BytesIO(change(whole)), tmp_path / "into")
