"""A package for the CloudWatch agent that the recipe pins: fetched, checked, installed, started.

The package is made here and only stands in for the agent, whose own can't be had without the
internet: what is proven is the way to it, and that the unit finds its configuration.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from amibuild import proc
from tests.local.host import left_on_host
from tests.local.scenario import amibuild, new_project

pytestmark = [
    pytest.mark.machine,
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]

HOME = "opt/aws/amazon-cloudwatch-agent"
FILES = {
    "DEBIAN/control": """\
Package: amazon-cloudwatch-agent
Version: 1.300070.0-1
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: Stands in for the CloudWatch agent
""",
    f"{HOME}/bin/start-amazon-cloudwatch-agent": """\
#!/bin/sh
set -e
cp /opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.json /run/agent-read
exec sleep infinity
""",
    f"{HOME}/etc/common-config.toml": "",
    "etc/systemd/system/amazon-cloudwatch-agent.service": f"""\
[Service]
ExecStart=/{HOME}/bin/start-amazon-cloudwatch-agent
[Install]
WantedBy=multi-user.target
""",
}
RECIPE = """\
[image]
name = "with-agent"
[provision]
steps = ["logging", "hardening", "look"]
services = ["bzflag"]
[provision.params.logging]
agent = "file:agent.deb#sha256={sha256}"
"""
LOOK = """\
import json


def test_the_agent_read_both_groups(host):
    assert host.check_output("systemctl is-active amazon-cloudwatch-agent") == "active"
    read = json.loads(host.check_output("cat /run/agent-read"))
    journals = read["logs"]["logs_collected"]["journald"]["collect_list"]
    assert {e["log_group_name"] for e in journals} == {"/with-agent/bzflag", "/with-agent/system"}
"""


def test_a_pinned_agent_is_installed_and_reads_all_parts(tmp_path: Path) -> None:
    tree = tmp_path / "deb"
    for name, text in FILES.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if "/bin/" in name else 0o644)
    folder = new_project(tmp_path / "project", recipe="")
    package = folder / "agent.deb"
    proc.run(["dpkg-deb", "--root-owner-group", "--build", tree, package])
    sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
    (folder / "amibuild.toml").write_text(RECIPE.format(sha256=sha256))
    look = folder / "provisioners/look"
    look.mkdir(parents=True)
    (look / "provisioner.toml").write_text('purpose = "Looks at what the agent read"\n')
    (look / "run.sh").write_text("#!/usr/bin/env bash\nset -euo pipefail\n")
    (look / "test_look.py").write_text(LOOK)

    done = amibuild(folder, "bake", "--machine", "nspawn", "--json")

    assert done.exit_code == 0, done.story
    manifest = json.loads(Path(done.json["manifest"]).read_text())
    assert "amazon-cloudwatch-agent" in manifest["packages"]
    assert [step["notes"] for step in manifest["steps"] if step["notes"]] == []
    passed = [c["name"] for c in manifest["checks"] if c["outcome"] == "passed"]
    assert "look/test_look.py::test_the_agent_read_both_groups" in passed
    assert left_on_host() == {}
