"""`amibuild dev` as a user calls it: a real machine that stays, a step that is mended by saving."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.scenario import Running, amibuild, new_project

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]

RECIPE = """
[image]
name = "dev-loop"
[source]
ssm = "/aws/service/debian/release/13/latest/amd64"
[provision]
steps = ["hello"]
services = ["echo"]
"""
SCRIPT = """#!/usr/bin/env bash
set -euo pipefail
echo {text} >/etc/hello
"""
CHECK = """
def test_it_greets(host):
    assert host.file("/etc/hello").content_string == "hello\\n"
"""
SERVICE = """
purpose = "Tells who is there {number}"
command = ["/usr/bin/python3", "-m", "http.server", "8000"]
memory_mib = 64
[environment]
NUMBER = "{number}"
[[ports]]
name = "web"
port = 8000
protocol = "tcp"
"""
SERVICE_CHECK = """
def test_it_runs_with_what_was_saved_last(host, facts):
    pid = host.check_output("systemctl show --property=MainPID --value %s", facts["unit"])
    told = host.file(f"/proc/{{pid}}/environ").content_string
    assert "NUMBER={number}" in told.split(chr(0))
"""


@pytest.fixture
def project(data_dir: Path, tmp_path: Path) -> Iterator[Path]:
    folder = new_project(tmp_path / "project", recipe=RECIPE)
    hello = folder / "provisioners" / "hello"
    hello.mkdir(parents=True)
    (hello / "provisioner.toml").write_text('purpose = "Greets"\n')
    (hello / "run.sh").write_text(SCRIPT.format(text="bye"))
    (hello / "test_hello.py").write_text(CHECK)
    save_service(folder, 1)
    yield folder
    amibuild(folder, "local", "down")


def save_service(folder: Path, number: int) -> None:
    echo = folder / "provisioners" / "services" / "echo"
    echo.mkdir(parents=True, exist_ok=True)
    (echo / "test_echo.py").write_text(SERVICE_CHECK.format(number=number))
    (echo / "service.toml").write_text(SERVICE.format(number=number))


def test_a_step_is_mended_by_saving_it_and_the_machine_stays(project: Path) -> None:
    failed = amibuild(project, "dev", "hello", "--once", "--json")
    assert failed.exit_code == 3, failed.story
    assert "hello/test_hello.py::test_it_greets" in failed.json["error"]["failures"][0]
    run = project / "provisioners" / "hello" / "run.sh"
    with Running(project, "dev", "hello") as running:
        running.wait_for_line("waiting for a save")
        run.write_text(SCRIPT.format(text="hello"))
        running.wait_for_line("1 check passed")
        assert running.end(signal.SIGINT) == 0
    story = running.story.read_text()
    assert "0 checks passed, 1 failed" in story
    assert "s after the save" in story
    once = amibuild(project, "dev", "hello", "--once", "--json")
    assert once.exit_code == 0, once.story
    assert [step["name"] for step in once.json["steps"]] == ["hello"]
    machine, bake_id = once.json["machine"], once.json["bake_id"]
    assert f"{machine} stays" in story
    shown = amibuild(project, "run", bake_id, "--", "cat", "/etc/hello")
    assert shown.stdout == "hello\n"
    fresh = amibuild(project, "dev", "hello", "--once", "--json", "--fresh")
    assert fresh.exit_code == 0, fresh.story
    assert fresh.json["machine"] != machine


@pytest.mark.soak
def test_a_service_runs_at_once_and_is_started_again_when_it_was_saved(project: Path) -> None:
    first = amibuild(project, "dev", "echo", "--once", "--json")
    assert first.exit_code == 0, first.story
    save_service(project, 2)
    second = amibuild(project, "dev", "echo", "--once", "--json")
    assert second.exit_code == 0, second.story
    again = "echo/test_echo.py::test_it_runs_with_what_was_saved_last"
    assert again in [check["id"] for check in second.json["checks"]]
    assert second.json["machine"] == first.json["machine"]
    before = boot_of(project, first.json["bake_id"])
    booted = amibuild(project, "dev", "echo", "--once", "--json", "--reboot")
    assert booted.exit_code == 0, booted.story
    assert boot_of(project, first.json["bake_id"]) != before


def boot_of(project: Path, bake_id: str) -> str:
    boot_id = "/proc/sys/kernel/random/boot_id"
    return amibuild(project, "run", bake_id, "--", "cat", boot_id).stdout
