"""The shipped recipe over SSH: what it makes is what it makes over SSM, and has no sshd either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.local.host import left_on_host
from tests.local.scenario import amibuild, new_project

pytestmark = [pytest.mark.machine, pytest.mark.soak]


def bake(folder: Path, communicator: str) -> dict[str, Any]:
    """The manifest of the image."""
    project = new_project(folder / communicator)
    done = amibuild(
        project, "bake", "--json", "--set", f"builder.communicator={communicator}", timeout_s=2400
    )
    assert done.exit_code == 0, done.story
    assert done.json["verified"] is True
    assert list(project.glob(".amibuild/ssh/*")) == []
    loaded: dict[str, Any] = json.loads(Path(done.json["manifest"]).read_text())
    return loaded


def test_both_ways_make_the_same_image(tmp_path: Path, data_dir: Path) -> None:
    one, other = bake(tmp_path, "ssm"), bake(tmp_path, "ssh")
    assert left_on_host() == {}
    assert other["hygiene"]["failed"] == []
    for part in ("packages", "users", "units_enabled"):
        assert other[part] == one[part], part
    outcomes = [
        {check["name"]: check["outcome"] for check in manifest["checks"]}
        for manifest in (one, other)
    ]
    assert outcomes[0] == outcomes[1]
