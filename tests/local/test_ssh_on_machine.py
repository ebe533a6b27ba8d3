"""The hardening of a recipe that keeps sshd: one boot later, its checks pass on an nspawn machine.

Among them is a guest from another address who guesses logins, and is shut out by fail2ban.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator

import pytest

from amibuild import proc
from amibuild.library.folder import read_provisioner
from amibuild.library.load import bundled_provisioners
from amibuild.library.provisioner import compile_provisioner
from amibuild.library.step import BuildStep
from amibuild.verify.bundle import build_bundle
from amibuild.wait import Look, until
from tests.local.clients import Here
from tests.local.scenario import command
from tests.local.steps import installing

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]

BOOT = "cat /proc/sys/kernel/random/boot_id; systemctl is-system-running --wait || true"


@pytest.fixture(scope="module")
def step() -> BuildStep:
    provisioner = read_provisioner(bundled_provisioners() / "hardening").value
    assert provisioner is not None
    return compile_provisioner(provisioner, {"ssh": True})


@pytest.fixture(scope="module")
def machine(here: Here, step: BuildStep) -> Iterator[str]:
    """As it is when it boots for the first time after the step."""
    instance = here.launch()
    here.ec2.get_waiter("instance_running").wait(InstanceIds=[instance])
    before = booted(here, instance)
    run(here, instance, installing(step))
    here.ec2.reboot_instances(InstanceIds=[instance])

    def look() -> Look[bool]:
        now = booted(here, instance)
        return Look("booting", True if now and now != before else None)

    until(look, what=instance, timeout_s=120)
    yield instance
    here.ec2.terminate_instances(InstanceIds=[instance])


def booted(here: Here, instance: str) -> str:
    """Which boot it is in, once that is over; nothing while it is not."""
    return run(here, instance, BOOT, check=False).partition("\n")[0]


def run(here: Here, instance: str, script: str, *, check: bool = True) -> str:
    done = proc.run(
        command("local", "shell", instance),
        cwd=here.folder,
        stdin=f"{script}\n".encode(),
        check=False,
        timeout_s=300,
    )
    assert done.exit_code == 0 or not check, done.text + done.stderr.decode()
    return done.text if done.exit_code == 0 else ""


def test_its_checks_pass_and_one_of_them_was_a_guest_who_was_banned(
    here: Here, machine: str, step: BuildStep
) -> None:
    bundle = base64.encodebytes(build_bundle([step])).decode()
    result = run(
        here,
        machine,
        f"base64 -d >/root/c.pyz <<'EOF'\n{bundle}EOF\n"
        "python3 -I -S /root/c.pyz --json /root/result >/dev/null || true; cat /root/result",
    )
    checks = {check["id"]: check for check in json.loads(result)["checks"]}
    failed = {"failed", "error"}
    assert [(i, c["message"]) for i, c in checks.items() if c["outcome"] in failed] == []
    banned = "hardening/test_fail2ban.py::test_an_address_that_guesses_is_banned"
    assert checks[banned]["outcome"] == "passed"
