"""What the runbook says to paste for a step with artifacts installs the same files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.library.artifact import Artifact, artifact_parts
from amibuild.library.step import BuildStep, StepKind
from amibuild.outputs import paste
from amibuild.outputs.manifest import Manifest, to_json
from amibuild.outputs.runbook import extract_commands, merge, render
from tests.unit.archives import zipped
from tests.unit.samples import manifest, step


def written(tmp_path: Path, *artifacts: Artifact) -> Manifest:
    parts = artifact_parts(artifacts)
    made = BuildStep(
        name="game",
        kind=StepKind.PROVISIONER,
        purpose="A game.",
        script=f"set -euo pipefail\nbash artifacts/artifacts.sh {tmp_path}/opt/game\n",
        timeout_s=60,
        files=parts.files,
        sources=parts.sources,
    )
    return manifest(steps=(step(made),))


def commands(tmp_path: Path, *artifacts: Artifact) -> bytes:
    book = merge(None, render([written(tmp_path, *artifacts)]))
    return extract_commands(book).replace(paste.ROOT, str(tmp_path / "run")).encode()


@pytest.mark.skipif(os.geteuid() != 0, reason="it gives files to root")
def test_a_file_of_ones_own_is_put_beside_it_first(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "game.zip")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    pasted = commands(tmp_path, Artifact(url="file:game.zip", sha256=sha256))
    without = proc.run(["bash"], stdin=pasted, check=False)
    assert without.exit_code != 0
    assert b"FAILED: game" in without.stderr
    blobs = tmp_path / "run/game/artifacts/blobs"
    blobs.mkdir()
    archive.rename(blobs / sha256)
    proc.run(["bash"], stdin=pasted)
    assert (tmp_path / "opt/game/game/data/map.txt").read_bytes() == b"here\n"


def test_public_addresses_are_in_it(tmp_path: Path) -> None:
    pasted = commands(tmp_path, Artifact(url="https://example.org/a.zip", sha256="a" * 64)).decode()
    assert '"https://example.org/a.zip"' in pasted
    assert "test -f" not in pasted


def test_an_address_with_a_query_is_asked_for_by_its_checksum(tmp_path: Path) -> None:
    tokened = Artifact(url="https://example.org/a.zip?token=SECRET#x", sha256="a" * 64)
    pasted = commands(tmp_path, tokened).decode()
    assert '"urls": []' in pasted
    test = f"test -f artifacts/blobs/{'a' * 64} # a copy of https://example.org/a.zip, with"
    assert test in pasted
    assert "SECRET" not in pasted + to_json(written(tmp_path, tokened))
