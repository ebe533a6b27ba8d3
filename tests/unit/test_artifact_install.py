"""artifacts.sh and steamcmd.sh, run as on the builder: all of it is installed, or nothing is."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from amibuild import proc
from amibuild.library.artifact import Artifact, Steam, artifact_parts
from tests.unit.archives import member, tar, zipped

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="it gives files to root")


class Machine:
    """A step's folder with its files, and a place for what they install."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.opt = folder / "opt"
        self.target = self.opt / "svc-game"
        self.programs = folder / "bin"
        self.programs.mkdir()

    def step(self, *wanted: tuple[Path, dict[str, Any]], steam: Steam | None = None) -> None:
        """What fetch.py needs travels with it, as without a bucket."""
        shutil.rmtree(self.work, ignore_errors=True)
        blobs = self.work / "artifacts/blobs"
        blobs.mkdir(parents=True)
        artifacts = []
        for path, how in wanted:
            body = path.read_bytes()
            sha256 = hashlib.sha256(body).hexdigest()
            (blobs / sha256).write_bytes(body)
            artifacts.append(Artifact(url=f"file:{path.name}", sha256=sha256, **how))
        parts = artifact_parts(tuple(artifacts), steam, "nobody", str(self.target))
        for file in parts.files:
            (self.work / file.path).write_bytes(file.content)
        rows = [f'{{"name": "x", "sha256": "{s.sha256}", "urls": []}}' for s in parts.sources]
        (self.work / "artifacts/sources.json").write_text(f"[{', '.join(rows)}]")
        self.environment = dict(parts.environment or {})

    def install(self) -> proc.Finished:
        path = f"{self.programs}:{os.environ['PATH']}"
        env = {**self.environment, "PATH": path, "STEAM_PAUSE_S": "0"}
        call = ["bash", "artifacts/artifacts.sh", str(self.target)]
        return proc.run(call, cwd=self.work, env=env, check=False, timeout_s=120)

    def installed(self) -> dict[str, bytes]:
        return {
            str(p.relative_to(self.target)): p.read_bytes()
            for p in sorted(self.target.rglob("*"))
            if p.is_file()
        }

    def program(self, name: str, lines: Iterable[str]) -> None:
        path = self.programs / name
        path.write_text("\n".join(["#!/bin/bash", *lines]) + "\n")
        path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    # steamcmd runs as a user of its own, who must get there.
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path("/tmp") or folder == Path("/"):
            break
        folder.chmod(folder.stat().st_mode | 0o055)
    return Machine(tmp_path)


def test_several_files_end_as_one_folder_of_roots(machine: Machine, tmp_path: Path) -> None:
    plain = tmp_path / "tool"
    plain.write_bytes(b"\x7fELF")
    machine.step(
        (tar(tmp_path / "game.tar.xz", "xz"), {"strip": 1}),
        (zipped(tmp_path / "mod.zip", {"mod.lua": b"--"}), {"into": "mods/one"}),
        (plain, {"into": "bin", "unpack": False}),
    )
    done = machine.install()
    assert done.exit_code == 0, done.stderr.decode()
    assert sorted(machine.installed()) == [
        "bin/server",
        "bin/tool",
        "data/map.txt",
        "mods/one/mod.lua",
    ]
    for path in (machine.target, *machine.target.rglob("*")):
        assert (path.stat().st_uid, path.stat().st_gid) == (0, 0)
        assert path.stat().st_mode & 0o6022 == 0
        assert path.stat().st_mode & 0o044 == 0o044
    assert [p.name for p in machine.opt.iterdir()] == ["svc-game"]


def test_a_second_run_gives_the_same_folder(machine: Machine, tmp_path: Path) -> None:
    archive = tar(tmp_path / "game", "gz")
    machine.step((archive, {}))
    assert machine.install().exit_code == 0
    (machine.target / "old").write_text("of another version")
    machine.step((archive, {}))
    assert machine.install().exit_code == 0
    assert sorted(machine.installed()) == ["game/bin/server", "game/data/map.txt"]
    assert [p.name for p in machine.opt.iterdir()] == ["svc-game"]


def test_one_wrong_checksum_and_nothing_is_installed(machine: Machine, tmp_path: Path) -> None:
    bad = zipped(tmp_path / "mod")
    machine.step((tar(tmp_path / "game", "gz"), {}), (bad, {}))
    blob = machine.work / "artifacts/blobs" / hashlib.sha256(bad.read_bytes()).hexdigest()
    blob.write_bytes(b"something else")
    done = machine.install()
    assert done.exit_code == 1
    assert b"not fetched: x: has the SHA-256" in done.stderr
    assert list(machine.opt.iterdir()) == []


def test_one_dishonest_archive_and_what_was_there_stays(machine: Machine, tmp_path: Path) -> None:
    machine.step((tar(tmp_path / "game", "gz"), {}))
    assert machine.install().exit_code == 0
    before = machine.installed()
    evil = tar(tmp_path / "evil", "gz", extra=(member("../../evil", size=1),))
    machine.step((zipped(tmp_path / "mod", {"new": b"1"}), {}), (evil, {}))
    done = machine.install()
    assert done.exit_code == 1
    assert b"leads out of the archive" in done.stderr
    assert machine.installed() == before
    assert [p.name for p in machine.opt.iterdir()] == ["svc-game"]
    assert not (tmp_path / "evil.txt").exists()


FAKE_STEAM = """\
echo "$*" >>{log}
while [ $# -gt 0 ]; do
    case $1 in
        +force_install_dir) dir=$2 ;;
    esac
    shift
done
count=$(wc -l <{log})
mkdir -p "$dir/steamapps/downloading"
echo binary >"$dir/server"
chmod 777 "$dir/server"
flags=({flags})
flag=${{flags[count-1]}}
if [ "$flag" != none ]; then
    printf '"AppState"\\n{{\\n\\t"appid"\\t\\t"1690800"\\n\\t"StateFlags"\\t\\t"%s"\\n' "$flag" \\
        >"$dir/steamapps/appmanifest_1690800.acf"
    printf '\\t"buildid"\\t\\t"98765"\\n}}\\n' >>"$dir/steamapps/appmanifest_1690800.acf"
fi
exit {code}
"""


def steam(
    machine: Machine, tmp_path: Path, flags: str, code: int
) -> tuple[proc.Finished, list[str]]:
    log = tmp_path / "calls"
    log.write_text("")
    log.chmod(0o666)
    text = FAKE_STEAM.format(log=log, flags=flags, code=code)
    machine.program("steamcmd", text.splitlines())
    machine.step(steam=Steam(app=1690800, branch="experimental"))
    return machine.install(), log.read_text().splitlines()


@pytest.mark.parametrize("code", [0, 8])
def test_steam_is_judged_by_the_manifest_whatever_its_exit_code(
    machine: Machine, tmp_path: Path, code: int
) -> None:
    done, calls = steam(machine, tmp_path, "4", code)
    assert done.exit_code == 0, done.stderr.decode()
    assert b"app 1690800, branch experimental: build 98765" in done.stdout
    (call,) = calls
    assert " +login anonymous +app_update 1690800 -beta experimental validate +quit" in call
    assert sorted(machine.installed()) == ["server", "steamapps/appmanifest_1690800.acf"]
    server = (machine.target / "server").stat()
    assert (server.st_uid, server.st_mode & 0o777) == (0, 0o755)


def test_steam_is_asked_again_until_it_is_fully_installed(machine: Machine, tmp_path: Path) -> None:
    done, calls = steam(machine, tmp_path, "none 1026 4", 0)
    assert done.exit_code == 0, done.stderr.decode()
    assert len(calls) == 3
    assert b"try 1 of 5: steamcmd ended with 0; StateFlags missing, not 4" in done.stderr
    assert b"try 2 of 5: steamcmd ended with 0; StateFlags 1026, not 4" in done.stderr


def test_steam_that_never_says_so_is_not_installed(machine: Machine, tmp_path: Path) -> None:
    done, calls = steam(machine, tmp_path, "6 6 6 6 6", 0)
    assert done.exit_code == 1
    assert len(calls) == 5
    assert b"app 1690800, branch experimental, is not fully installed" in done.stderr
    assert list(machine.opt.iterdir()) == []
