"""`amibuild artifacts`: from an archive to a pinned service, its cache and its mirror, as typed."""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from amibuild import proc

RECIPE = """\
[image]
name = "game"
[source]
ssm = "/aws/service/debian/release/13/latest/amd64"
[provision]
steps = []
services = ["my-game"]
[artifacts]
mirror = "mirror"
"""
SERVICE = """\
purpose = "A game from an archive"
command = ["{install}/server"]
memory_mib = 64
[[ports]]
name = "game"
port = 4000
protocol = "tcp"
"""


def amibuild(folder: Path, *words: str, check: bool = True) -> proc.Finished:
    argv = [sys.executable, "-m", "amibuild.cli.main", "artifacts", *words, "--json"]
    return proc.run(argv, cwd=folder, check=check, timeout_s=60)


def asked(folder: Path, *words: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(amibuild(folder, *words).stdout)
    return loaded


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "game-1.0").mkdir()
    (tmp_path / "game-1.0/server").write_text("#!/bin/sh\n")
    with tarfile.open(tmp_path / "game.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "game-1.0", "game-1.0")
    return tmp_path / "game.tar.gz"


@pytest.fixture
def project(tmp_path: Path, archive: Path) -> Path:
    """A recipe whose service has that archive, pinned by what `pin` prints."""
    folder = tmp_path / "project"
    service = folder / "provisioners/services/my-game"
    service.mkdir(parents=True)
    (folder / "amibuild.toml").write_text(RECIPE)
    argv = [sys.executable, "-m", "amibuild.cli.main", "artifacts", "pin", archive.as_uri()]
    pinned = proc.run(argv, cwd=folder, timeout_s=60).text
    assert tomllib.loads(pinned)["artifact"]["strip"] == 1
    (service / "service.toml").write_text(SERVICE + pinned)
    return folder


def test_what_is_pinned_is_fetched_once(project: Path, archive: Path) -> None:
    (fetched,) = asked(project, "fetch")["artifacts"]
    assert (fetched["step"], fetched["fresh"]) == ("my-game", True)
    (again,) = asked(project, "fetch")["artifacts"]
    assert again == {**fetched, "fresh": False}
    assert (project / fetched["place"]).read_bytes() == archive.read_bytes()


def test_a_mirror_holds_what_the_source_has_lost(project: Path, archive: Path) -> None:
    (mirrored,) = asked(project, "mirror")["artifacts"]
    assert mirrored["fresh"]
    content = archive.read_bytes()
    archive.unlink()
    (fetched,) = asked(project, "fetch", "--into", "elsewhere")["artifacts"]
    assert (project / fetched["place"]).read_bytes() == content


def test_another_file_than_the_pinned_one_is_a_failure_that_leaves_none(
    project: Path, archive: Path
) -> None:
    was = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.write_bytes(b"something else")
    done = amibuild(project, "fetch", check=False)
    assert done.exit_code == 1
    assert was[:12] in json.loads(done.stdout)["error"]["message"]
    left = (project / ".amibuild").rglob("*") if (project / ".amibuild").exists() else ()
    assert [path for path in left if path.is_file()] == []
