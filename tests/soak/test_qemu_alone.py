"""Where nspawn can't be had, QEMU does both: it builds the image and proves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.local.host import left_on_host
from tests.local.scenario import amibuild, new_project

pytestmark = [pytest.mark.machine, pytest.mark.soak]


def test_the_default_recipe_bakes_with_qemu_alone(tmp_path: Path) -> None:
    folder = new_project(tmp_path / "project")
    done = amibuild(folder, "bake", "--machine", "qemu", "--json", timeout_s=3600)
    assert done.exit_code == 0, done.story
    assert done.json["verified"] is True
    assert left_on_host() == {}
