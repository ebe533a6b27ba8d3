"""The hardening of a recipe that keeps sshd: one boot later, its checks pass on an nspawn machine.

Among them is a guest from another address who guesses logins, and is shut out by fail2ban.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator

import pytest

from amibuild.library.folder import read_provisioner
from amibuild.library.load import bundled_provisioners
from amibuild.library.provisioner import compile_provisioner
from amibuild.library.step import BuildStep
from amibuild.verify.bundle import build_bundle
from tests.local.clients import Here
from tests.local.steps import installing

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]


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
    here.script(instance, installing(step))
    here.rebooted(instance)
    yield instance
    here.ec2.terminate_instances(InstanceIds=[instance])


def test_its_checks_pass_and_one_of_them_was_a_guest_who_was_banned(
    here: Here, machine: str, step: BuildStep
) -> None:
    bundle = base64.encodebytes(build_bundle([step])).decode()
    result = here.script(
        machine,
        f"base64 -d >/root/c.pyz <<'EOF'\n{bundle}EOF\n"
        "python3 -I -S /root/c.pyz --json /root/result >/dev/null || true; cat /root/result",
    )
    checks = {check["id"]: check for check in json.loads(result)["checks"]}
    failed = {"failed", "error"}
    assert [(i, c["message"]) for i, c in checks.items() if c["outcome"] in failed] == []
    banned = "hardening/test_fail2ban.py::test_an_address_that_guesses_is_banned"
    assert checks[banned]["outcome"] == "passed"
