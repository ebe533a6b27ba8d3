"""What is copied to the machine of a bake and from it lies where scp would put it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from amibuild.bake_machine import BakeMachine
from amibuild.communicator.ssh import SshCommunicator
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.copying import Copy, copy, read_copy
from amibuild.errors import UsageError
from amibuild.names import InstanceId
from amibuild.wait import Waiting
from tests.unit.fakes import ShellSsm
from tests.unit.ssh_server import Machine

BAKE = "20261122-101500-abc123"
ID = InstanceId("i-0123456789abcdef0")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((f"{BAKE}:/etc/x", "."), Copy(BAKE, "/etc/x", ".", to_machine=False)),
        ((f"{BAKE}:x", "a/b:c"), Copy(BAKE, "/root/x", "a/b:c", to_machine=False)),
        (("./a:b", f"{BAKE}:"), Copy(BAKE, "./a:b", "/root/", to_machine=True)),
        (("a b", f"{BAKE}:/o:p\n"), Copy(BAKE, "a b", "/o:p\n", to_machine=True)),
    ],
)
def test_one_side_is_on_the_machine(words: tuple[str, str], wanted: Copy) -> None:
    assert read_copy(*words) == wanted


@pytest.mark.parametrize(
    ("words", "which"), [(("a", "b"), "neither is"), ((f"{BAKE}:a", f"{BAKE}:b"), "both are")]
)
def test_two_sides_here_or_there_are_refused(words: tuple[str, str], which: str) -> None:
    with pytest.raises(UsageError, match=which) as refused:
        read_copy(*words)
    assert refused.value.exit_code == 2


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BakeMachine]:
    made = Machine(tmp_path / "run")
    yield BakeMachine(ID, SshCommunicator(made.link))
    made.close()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here" / "folder").mkdir(parents=True)
    (tmp_path / "here" / "folder" / "in it").write_text("in it")
    (tmp_path / "here" / "file").write_text("file")
    return tmp_path / "here"


def sent(machine: BakeMachine, source: Path, to: str) -> str:
    return copy(machine, read_copy(str(source), f"{BAKE}:{to}"))


def fetched(machine: BakeMachine, source: Path, to: str) -> str:
    return copy(machine, read_copy(f"{BAKE}:{source}", to))


def test_it_gets_a_new_name_or_goes_into_a_folder_that_is_there(
    machine: BakeMachine, here: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    assert sent(machine, here / "file", f"{there}/other") == f"{there}/other"
    assert sent(machine, here / "file", f"{there}") == f"{there}/file"
    assert sent(machine, here / "folder", f"{there}/new/") == f"{there}/new/folder"
    assert (there / "other").read_text() == (there / "file").read_text() == "file"
    assert (there / "new" / "folder" / "in it").read_text() == "in it"


def test_this_folder_goes_by_its_name(
    machine: BakeMachine, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here / "folder")
    assert sent(machine, Path(), f"{tmp_path}/") == f"{tmp_path}/folder"
    assert (tmp_path / "folder" / "in it").read_text() == "in it"


def test_it_comes_back_the_same_way(machine: BakeMachine, here: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    assert fetched(machine, here / "file", f"{back}/") == f"{back}/file"
    assert fetched(machine, here / "folder", f"{back}") == f"{back}/folder"
    assert fetched(machine, here / "folder", f"{back}/other") == f"{back}/other"
    (back / "old").write_text("old")
    assert fetched(machine, here / "file", f"{back}/old") == f"{back}/old"
    assert (back / "file").read_text() == (back / "old").read_text() == "file"
    assert (back / "folder" / "in it").read_text() == "in it"
    assert (back / "other" / "in it").read_text() == "in it"
    assert {path.name for path in back.iterdir()} == {"file", "folder", "old", "other"}


def test_a_folder_by_its_dot_is_the_folder(
    machine: BakeMachine, here: Path, tmp_path: Path
) -> None:
    back = tmp_path / "back"
    back.mkdir(mode=0o711)
    for source in (f"{here}/folder/.", f"{here}/folder/./"):
        wanted = read_copy(f"{BAKE}:{source}", str(back))
        assert copy(machine, wanted) == f"{back}/folder"
    assert [path.name for path in back.iterdir()] == ["folder"]
    assert back.stat().st_mode & 0o777 == 0o711


def test_nothing_here_is_touched_by_what_can_not_come(
    machine: BakeMachine, here: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.write_text("old")
    with pytest.raises(UsageError, match=r"is a folder, and .*old is a file"):
        fetched(machine, here / "folder", str(old))
    with pytest.raises(UsageError, match=r"there is no .*gone on the machine"):
        fetched(machine, here / "gone", str(old))
    with pytest.raises(UsageError, match="there is no folder"):
        fetched(machine, here / "file", str(tmp_path / "gone" / "file"))
    with pytest.raises(UsageError, match="has no name of its own"):
        fetched(machine, Path("/"), str(old))
    assert old.read_text() == "old"
    assert not list(tmp_path.glob(".old*"))


def test_a_folder_there_that_is_misspelt_is_not_made(
    machine: BakeMachine, here: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*/thre on the machine") as refused:
        sent(machine, here / "file", f"{tmp_path}/thre/file")
    assert "with a slash at its end" in (refused.value.hint or "")
    assert not (tmp_path / "thre").exists()


def test_without_ssh_it_is_told_what_else_there_is(here: Path, tmp_path: Path) -> None:
    machine = BakeMachine(ID, SsmCommunicator(ShellSsm(tmp_path / "ssm"), ID))
    with pytest.raises(UsageError, match="carries no files") as refused:
        sent(machine, here / "file", "/tmp/file")
    assert "-- cat FILE" in (refused.value.hint or "")
    assert 'builder.communicator = "ssh"' in (refused.value.hint or "")


def test_it_is_told_how_much_has_passed(
    machine: BakeMachine, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amibuild.communicator.ssh_channel.TELL_S", 0)
    monkeypatch.setattr("amibuild.communicator.ssh_channel.SHARE_OF_ELAPSED", 0)
    seen: list[Waiting] = []
    copy(machine, read_copy(str(here / "folder"), f"{BAKE}:{tmp_path}/a/"), seen.append)
    copy(machine, read_copy(f"{BAKE}:{here / 'folder'}", str(tmp_path / "b")), seen.append)
    assert [one.what for one in seen][:: len(seen) - 1] == [
        f"sending {here / 'folder'}",
        f"fetching {here / 'folder'}",
    ]
    assert all(one.state.endswith(" MB") for one in seen)
