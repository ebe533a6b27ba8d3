"""The bake that others judge too: Lynis and OpenSCAP on a fresh boot of it, under QEMU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.local.conftest import data_dir as data_dir  # the fixture
from tests.local.scenario import Called, amibuild, new_project

JUDGED = (
    *("--set", "provision.params.hardening.lynis=always"),
    *("--set", "provision.params.hardening.second_opinion=true"),
    *("--set", "verify.timeout_s=7200"),
)


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Called:
    folder = new_project(tmp_path_factory.mktemp("judged") / "project")
    done = amibuild(folder, "bake", *JUDGED, "--json", timeout_s=7200)
    assert done.exit_code == 0, done.story
    return done
