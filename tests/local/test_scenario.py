"""The one scenario, on real machines: built in nspawn, proven by QEMU through its bootloader."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.hardening.parts import explained
from tests.hardening.table import README
from tests.local.host import left_on_host
from tests.local.scenario import Called, Running, amibuild, new_project

pytestmark = pytest.mark.machine

BROKEN_STEP = """\
[image]
name = "broken-step"
[source]
ssm = "/aws/service/debian/release/13/latest/amd64"
[provision]
steps = ["noisy"]
services = []
"""
FAILING_CHECK = BROKEN_STEP.replace("broken-step", "failing-check")


@pytest.fixture(scope="module")
def manifest(baked: Called) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(baked.json["manifest"]).read_text())
    return loaded


def test_the_bake_ends_with_a_verified_image(baked: Called) -> None:
    assert baked.json["verified"] is True
    assert baked.json["reused"] is False
    assert baked.json["image"]["name"] == f"game-host-{baked.json['image']['version']}"


def test_nothing_of_it_is_left_on_the_host(baked: Called) -> None:
    assert left_on_host() == {}


def test_the_services_port_answered_inside_the_booted_machine(manifest: dict[str, Any]) -> None:
    answered = [c for c in manifest["checks"] if "minetest" in c["name"] and "listen" in c["name"]]
    assert [c["outcome"] for c in answered] == ["passed"]
    assert manifest["services"]["minetest"]["ports"] == [
        {"name": "game", "port": 30000, "protocol": "udp", "public": True, "seen": "answers"}
    ]


def test_what_was_measured_of_each_service_is_in_the_manifest(manifest: dict[str, Any]) -> None:
    services = manifest["services"]
    assert list(services) == ["bzflag", "minetest", "mumble", "openttd"]
    for name, service in services.items():
        assert 0 < service["exposure"] <= 2.0, name
        assert {port["seen"] for port in service["ports"]} <= {"answers", "connects", "listens"}
        # minetest 36 MB, bzflag 5.5, mumble 76, openttd 103 when each came alone.
        assert 1e6 < service["installed_bytes"] < 500e6, name


def test_the_finished_disk_is_clean(manifest: dict[str, Any]) -> None:
    assert manifest["hygiene"]["failed"] == []
    assert len(manifest["hygiene"]["passed"]) > 10


def test_what_lynis_left_open_is_explained(manifest: dict[str, Any]) -> None:
    judged = manifest["hardening"]["lynis"]
    open_ones = set(judged["open"]) - set(judged["lost_to_host_kernel"])
    assert open_ones
    assert sorted(open_ones - explained(README.read_text())) == []


def test_the_manifest_has_what_is_in_the_image(manifest: dict[str, Any]) -> None:
    assert "luanti-server" in manifest["packages"]
    assert "svc-minetest" in manifest["users"]
    assert "minetest.service" in manifest["units_enabled"]
    assert manifest["platform_packages"] == ["qemu-guest-agent"]
    assert [s["name"] for s in manifest["steps"]] == [
        *("ssm-agent", "os", "logging", "hardening", "idle-stop"),
        *("minetest", "bzflag", "mumble", "openttd"),
        "seal",
    ]
    assert all(s["exit_code"] == 0 for s in manifest["steps"])


def test_each_steps_whole_output_is_in_a_log(folder: Path, manifest: dict[str, Any]) -> None:
    for step in manifest["steps"]:
        assert (folder / step["log"]).is_file()
    logs = {step["name"]: step["log"] for step in manifest["steps"]}
    assert "luanti-server" in (folder / logs["minetest"]).read_text()


def test_what_could_not_be_had_is_declared_and_told(
    baked: Called, manifest: dict[str, Any]
) -> None:
    notes = {step["name"]: step["notes"] for step in manifest["steps"] if step["notes"]}
    (note,) = notes.pop("logging")
    assert note.startswith("amazon-cloudwatch-agent is absent: ")
    assert note in baked.story
    assert note in Path(baked.json["runbook"]).read_text()


def test_the_boot_is_measured(manifest: dict[str, Any]) -> None:
    assert manifest["boot"]["seconds"] > 0
    assert manifest["boot"]["machine"] in ("qemu", "kvm", "systemd-nspawn")


def test_terraform_gets_the_id(folder: Path, baked: Called) -> None:
    values = json.loads((folder / "terraform/amibuild.auto.tfvars.json").read_text())
    assert values["amibuild_ami_id"] == baked.json["image"]["id"]
    assert values["amibuild_digest"] == baked.json["digest"]


def test_the_image_is_there_in_a_later_run(folder: Path, baked: Called) -> None:
    listed = amibuild(folder, "images", "--json").json["images"]
    assert baked.json["image"]["id"] in [image["id"] for image in listed]
    shown = amibuild(folder, "show", baked.json["image"]["version"], "--json").json
    assert baked.json["digest"] in json.dumps(shown)


def test_an_unchanged_recipe_reuses_it_without_a_machine(folder: Path, baked: Called) -> None:
    journals = sorted((folder / ".amibuild/journals").iterdir())
    again = amibuild(folder, "bake", "--if-changed", "--json")
    assert again.exit_code == 0, again.story
    assert again.json["reused"] is True
    assert again.json["image"] == baked.json["image"]
    assert sorted((folder / ".amibuild/journals").iterdir()) == journals


def test_a_changed_recipe_is_not_reused(folder: Path, baked: Called) -> None:
    plan = amibuild(folder, "plan", "--set", "builder.volume_gib=9", "--json").json
    assert plan["reusable"] is None
    assert plan["digest"] != baked.json["digest"]
    assert amibuild(folder, "plan", "--json").json["reusable"]["id"] == baked.json["image"]["id"]


def images(folder: Path) -> list[str]:
    return [image["id"] for image in amibuild(folder, "images", "--json").json["images"]]


@pytest.fixture
def noisy(tmp_path: Path, data_dir: Path) -> Path:
    """A project whose one step fails after saying something."""
    folder = new_project(tmp_path / "project", recipe=BROKEN_STEP)
    add_step(folder, "seq 1 60; echo the disk is on fire >&2; exit 9")
    return folder


def add_step(folder: Path, script: str, check: str = "def test_it() -> None:\n    pass\n") -> None:
    step = folder / "provisioners/noisy"
    step.mkdir(parents=True)
    (step / "provisioner.toml").write_text('purpose = "Says something, then fails"\n')
    (step / "run.sh").write_text(f"#!/usr/bin/env bash\nset -euo pipefail\n{script}\n")
    (step / "test_noisy.py").write_text(check)


@pytest.mark.parametrize("communicator", ["ssm", "ssh"])
def test_a_failing_step_is_told_with_its_last_lines_and_leaves_nothing(
    noisy: Path, communicator: str
) -> None:
    before = images(noisy)
    done = amibuild(noisy, "bake", "--set", f"builder.communicator={communicator}")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "the disk is on fire" in done.story
    assert "noisy.log" in done.story
    log = next((noisy / ".amibuild/logs").glob("*/noisy.log")).read_text()
    assert log.endswith("60\nthe disk is on fire\n")
    assert images(noisy) == before
    assert left_on_host() == {}


def test_a_failing_check_or_a_key_left_behind_removes_the_image_and_exits_3(
    tmp_path: Path, data_dir: Path
) -> None:
    folder = new_project(tmp_path / "project", recipe=FAILING_CHECK)
    check = "def test_it(host) -> None:\n    assert host.file('/etc/never').exists\n"
    add_step(folder, "ssh-keygen -q -t ed25519 -N '' -f /srv/left-key", check)
    before = images(folder)
    # Proven by nspawn, in half the time: the machine makes no difference to what follows.
    done = amibuild(folder, "bake", "--machine", "nspawn", "--json")
    assert done.exit_code == 3, done.story
    assert "test_it" in done.story
    (found,) = re.findall(r"/srv/left-key: .* at byte \d+", done.story)
    assert "private key" in found
    assert images(folder) == before
    assert not (folder / "RUNBOOK.md").exists()
    assert left_on_host() == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_clean_with_130(
    tmp_path: Path, data_dir: Path, number: signal.Signals
) -> None:
    folder = new_project(tmp_path / "project", recipe=BROKEN_STEP)
    add_step(folder, "sleep 600")
    before = images(folder)
    with Running(folder, "bake") as running:
        running.wait_for_line("noisy")
        assert running.end(number) == 130
    assert images(folder) == before
    assert left_on_host() == {}
    assert amibuild(folder, "reap", "--json").json["removed"] == []


def test_after_kill_9_the_host_is_clean_and_reap_finds_the_rest(
    tmp_path: Path, data_dir: Path
) -> None:
    folder = new_project(tmp_path / "project", recipe=BROKEN_STEP)
    add_step(folder, "sleep 600")
    with Running(folder, "bake") as running:
        running.wait_for_line("noisy")
        running.end(signal.SIGKILL)
    assert left_on_host() == {}
    assert amibuild(folder, "reap", "--json").exit_code == 0
    again = amibuild(folder, "reap", "--dry-run", "--json").json
    assert again["would_remove"] == []


def test_a_kept_machine_is_entered_over_ssh_and_stays_until_local_down(noisy: Path) -> None:
    """With the bake's own keys, as the bake was; down says what it ends."""
    ended = None
    try:
        over_ssh = ("--set", "builder.communicator=ssh")
        done = amibuild(noisy, "bake", "--on-error", "keep", *over_ssh)
        assert done.exit_code == 1
        assert "noisy" in done.story
        kept = amibuild(noisy, "local", "status", "--json").json["instances"]
        assert [(i["driver"], i["state"]) for i in kept] == [("nspawn", "running")]
        bake = amibuild(noisy, "bakes", "--json").json["bakes"][0]["id"]
        ran = amibuild(noisy, "run", bake, "--", "sh", "-c", "id -u; cat /proc/self/cgroup; exit 7")
        assert (ran.exit_code, ran.stdout.split("\n")[0]) == (7, "0"), ran.story
        assert "amibuild-live-" in ran.stdout
        ended = [{"id": kept[0]["id"], "bake_id": bake, "purpose": "build"}]
    finally:
        down = amibuild(noisy, "local", "down", "--json")
        assert down.exit_code == 0
    assert down.json["ended"] == ended
    assert left_on_host() == {}
