"""The shipped recipe over SSH: what it makes is what it makes over SSM, and has no sshd either."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.local.host import left_on_host
from tests.local.scenario import amibuild, new_project

pytestmark = [pytest.mark.machine, pytest.mark.soak]


RELAY = Path(__file__).with_name("mortal_relay.py")
CUTS = 20


def bake(folder: Path, name: str, *settings: str) -> dict[str, Any]:
    """The manifest of the image."""
    project = new_project(folder / name)
    chosen = [word for setting in settings for word in ("--set", setting)]
    done = amibuild(project, "bake", "--json", *chosen, timeout_s=2400)
    assert done.exit_code == 0, done.story
    assert done.json["verified"] is True
    assert list(project.glob(".amibuild/ssh/*")) == []
    loaded: dict[str, Any] = json.loads(Path(done.json["manifest"]).read_text())
    return loaded


def test_both_ways_make_the_same_image(tmp_path: Path, data_dir: Path) -> None:
    same(bake(tmp_path, "ssm"), bake(tmp_path, "ssh", "builder.communicator=ssh"))
    assert left_on_host() == {}


def test_twenty_cuts_at_random_instants_make_the_same_image(tmp_path: Path, data_dir: Path) -> None:
    """The way there is a program that dies again and again."""
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    relay = f"{sys.executable} {RELAY} %h %p {deaths} {CUTS}"
    small = ('provision.steps=["os"]', "provision.services=[]", "provision.params={}")
    over_ssh = (*small, "builder.communicator=ssh", "aws.source_cidr=127.0.0.1/32")
    whole = bake(tmp_path, "whole", *over_ssh)
    same(whole, bake(tmp_path, "cut", *over_ssh, f"ssh.proxy_command={relay}"))
    assert len(list(deaths.iterdir())) == CUTS


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert other["hygiene"]["failed"] == []
    for part in ("packages", "users", "units_enabled"):
        assert other[part] == one[part], part
    assert outcomes(other) == outcomes(one)


def outcomes(manifest: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["outcome"] for check in manifest["checks"]}
