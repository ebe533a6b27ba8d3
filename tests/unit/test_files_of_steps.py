"""What may stand below a provisioner's files/, and what of it makes another image."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.communicator import shell
from amibuild.communicator.base import RemoteJob
from amibuild.library.folder import read_provisioner
from amibuild.library.provisioner import compile_provisioner
from amibuild.library.step import BuildStep, StepFile
from amibuild.outputs import paste
from amibuild.outputs.changes import _parts
from amibuild.outputs.manifest import File, file_record
from tests.unit.broken import PROVISIONER, provisioner
from tests.unit.samples import build_step, step

ASKED = """\
purpose = "Says hello."
[files."etc/sudoers"]
mode = "0440"
owner = "root:mail"
[files."var/game"]
mode = "2770"
owner = "man:mail"
"""


def compiled(folder: Path) -> BuildStep:
    read = read_provisioner(folder)
    assert read.value is not None, read.problems
    assert read.problems == ()
    return compile_provisioner(read.value, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = provisioner(tmp_path, ASKED)
    for name in ("etc/sudoers", "etc/a b\nc", "etc/-rf", "etc/grüße", "var/game/map"):
        path = made / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (made / "files/etc/run").symlink_to("../bin/./run")
    (made / "files/bin").mkdir()
    (made / "files/bin/run").write_text("x")
    (made / "files/bin/run").chmod(0o700)
    (made / "files/etc/wants").symlink_to("../bin")
    os.link(made / "files/bin/run", made / "files/bin/second")
    return made


def test_links_names_modes_and_owners_are_read(folder: Path) -> None:
    plain = {"etc/a b\nc", "etc/-rf", "etc/grüße", "var/game/map"}
    assert {file.path.removeprefix("files/"): file for file in compiled(folder).files} == {
        **{name: StepFile(f"files/{name}", name.encode()) for name in plain},
        "etc/sudoers": StepFile("files/etc/sudoers", b"etc/sudoers", 0o440, "root:mail"),
        "etc/run": StepFile("files/etc/run", b"", 0o777, link="../bin/./run"),
        "etc/wants": StepFile("files/etc/wants", b"", 0o777, link="../bin"),
        "bin/run": StepFile("files/bin/run", b"x", 0o755),
        "bin/second": StepFile("files/bin/second", b"", 0o755, same_as="files/bin/run"),
        "var/game": StepFile("files/var/game", b"", 0o2770, "man:mail", folder=True),
    }


def test_modes_are_those_of_git_under_any_umask(folder: Path) -> None:
    before = compiled(folder).digest
    for path in (folder / "files").rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o700 if path.stat().st_mode & 0o100 else 0o600)
    assert compiled(folder).digest == before


def relinked(folder: Path) -> None:
    (folder / "files/etc/run").unlink()
    (folder / "files/etc/run").symlink_to("../bin/second")


def separated(folder: Path) -> None:
    (folder / "files/bin/second").unlink()
    (folder / "files/bin/second").write_text("x")
    (folder / "files/bin/second").chmod(0o755)


def other_owner(folder: Path) -> None:
    (folder / "provisioner.toml").write_text(ASKED.replace("root:mail", "root:man"))


def other_mode(folder: Path) -> None:
    (folder / "provisioner.toml").write_text(ASKED.replace("2770", "0770"))


@pytest.mark.parametrize("change", [relinked, separated, other_owner, other_mode])
def test_what_is_another_image_has_another_digest(
    folder: Path, change: Callable[[Path], None]
) -> None:
    before = compiled(folder)
    change(folder)
    after = compiled(folder)
    assert after.digest != before.digest
    (told,) = _parts(step(before), after)
    assert told.startswith("/files/")


def test_the_digest_of_plain_files_is_what_it_was_before_there_were_others() -> None:
    files = (StepFile("files/b", b"x", 0o755), StepFile("files/a", b"y"))
    assert build_step("greet", "true\n", files).digest == (
        "f367a170cd4c09cad3e3a46199d02928d96e4b2db0e034fff1743bd773ce27fc"
    )


def test_what_is_asked_of_a_link_is_to_be_asked_of_what_it_points_to(tmp_path: Path) -> None:
    made = provisioner(tmp_path, f'{PROVISIONER}[files.two]\nmode = "0600"\n')
    (made / "files").mkdir()
    (made / "files/one").touch()
    (made / "files/two").symlink_to("one")
    (problem,) = read_provisioner(made).problems
    assert "files.two: is a link to one: ask for the mode and owner of that" in str(problem)


def test_the_manifest_has_all_of_it(folder: Path) -> None:
    for file in compiled(folder).files:
        kept = File.model_validate_json(file_record(file).model_dump_json())
        more = (kept.owner, kept.link, kept.same_as, kept.folder)
        assert StepFile(kept.path, kept.read() or b"", kept.mode, *more) == file


LISTED = "find files -printf '%y %m %u:%g %n [%p] [%l]\\0' | sort -z; cat files/etc/*g*"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_commands_of_the_runbook_make_what_the_bake_sends(folder: Path, tmp_path: Path) -> None:
    sent, pasted = tmp_path / "sent", tmp_path / "pasted"
    sent.mkdir()
    made = compiled(folder)
    packed = shell.payload(RemoteJob("greet", made.script, 60, made.files))
    proc.run(["tar", "-xzpf", "-", "-C", sent], stdin=packed)
    commands = paste.block(step(made)).replace(paste.ROOT, str(pasted))
    proc.run(["bash"], stdin=commands.encode())
    look = ["bash", "-c", LISTED]
    assert proc.run(look, cwd=sent).stdout == proc.run(look, cwd=pasted / "greet").stdout
