"""The image that Lynis judges as a virtual machine, nothing suppressed; emulated, it takes long."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.local.host import left_on_host
from tests.local.scenario import amibuild, new_project

pytestmark = [
    pytest.mark.machine,
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]

ALWAYS = ("--set", "provision.params.hardening.lynis=always", "--set", "verify.timeout_s=7200")


def test_its_index_is_85_or_more_on_a_kernel_of_its_own(tmp_path: Path) -> None:
    folder = new_project(tmp_path / "project")
    done = amibuild(folder, "bake", *ALWAYS, "--json", timeout_s=3 * 3600)
    assert done.exit_code == 0, done.story
    manifest = json.loads(Path(done.json["manifest"]).read_text())
    judged = manifest["hardening"]
    assert judged["environment"] == "virtual machine"
    assert judged["lynis"]["floor"] == 85
    assert judged["lynis"]["index"] >= 85, judged
    assert left_on_host() == {}
