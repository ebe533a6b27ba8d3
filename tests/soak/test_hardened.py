"""The hardened image as a virtual machine: what others say of it, and that nothing broke in it.

Nothing is suppressed, and emulated it takes long.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amibuild.library.step import StepKind
from amibuild.project import load_project
from amibuild.verify.bundle import build_bundle
from tests.hardening.parts import explained
from tests.hardening.table import README
from tests.local.clients import Here, brought_up
from tests.local.host import left_on_host
from tests.local.scenario import REPOSITORY, Called, amibuild

pytestmark = [
    pytest.mark.machine,
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]

# A journal that was cut off is put aside; a file system that was, is repaired.
CUT_OFF = """
journalctl --boot --dmesg --grep 'recovery complete|orphan|EXT4-fs error' --output=cat || true
find /var/log/journal -name '*.journal~'
systemctl list-units --failed --plain --no-legend
"""
# Another package than the image has: one with a service of its own, which starts with it.
PACKAGE = """
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends memcached >/dev/null
systemctl is-active memcached
DEBIAN_FRONTEND=noninteractive apt-get -qq purge --autoremove memcached >/dev/null
systemctl is-system-running
"""
UPDATES = """
systemctl start apt-daily.service apt-daily-upgrade.service
systemctl show --property=Result --value apt-daily.service apt-daily-upgrade.service
tail -n 2 /var/log/unattended-upgrades/unattended-upgrades.log
"""
# Amazon's time server, in a network of its own behind a cable: it says that it is an hour later.
SERVER = """
import socket, struct, time
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("169.254.169.123", 123))
while True:
    asked, address = server.recvfrom(512)
    now = time.time() + 3600 + 2208988800
    stamp = struct.pack(">II", int(now), int(now % 1 * 2**32))
    head = struct.pack(">BBbb", 0x24, 1, 6, -20) + bytes(8) + b"TEST"
    server.sendto(head + stamp + asked[40:48] + stamp + stamp, address)
"""
TIME = f"""
set -e
ip netns add amitime
ip link add amitime0 type veth peer name amitime1 netns amitime
ip address add 198.51.100.1/30 dev amitime0
ip link set amitime0 up
ip -n amitime address add 169.254.169.123/32 dev amitime1
ip -n amitime link set amitime1 up
ip -n amitime route add 198.51.100.1/32 dev amitime1
ip route add 169.254.169.123/32 dev amitime0 src 198.51.100.1
cat >/run/time-server.py <<'EOF'
{SERVER}
EOF
systemd-run --quiet --unit=time-server ip netns exec amitime python3 /run/time-server.py
before=$(date +%s)
systemctl restart systemd-timesyncd
for _ in $(seq 120); do
    [ "$(timedatectl show --property=NTPSynchronized --value)" = yes ] && break
    sleep 1
done
timedatectl show --property=NTPSynchronized --value
echo "$(($(date +%s) - before))"
journalctl --unit=systemd-timesyncd --boot --output=cat | tail -n 3
"""


@pytest.fixture(scope="module")
def manifest(judged: Called) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(judged.json["manifest"]).read_text())
    return loaded


@pytest.fixture(scope="module")
def here(judged: Called, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("hardened")
    try:
        yield brought_up(folder, "qemu")
    finally:
        amibuild(folder, "local", "down", "--force")
    assert left_on_host() == {}


@pytest.fixture(scope="module")
def machine(here: Here, judged: Called) -> str:
    instance = here.launch(judged.json["image"]["id"])
    here.ec2.get_waiter("instance_running").wait(InstanceIds=[instance])
    return instance


def test_lynis_index_is_85_or_more_on_a_kernel_of_its_own(manifest: dict[str, Any]) -> None:
    judged = manifest["hardening"]
    assert judged["environment"] == "virtual machine"
    assert judged["lynis"]["floor"] == 85
    assert judged["lynis"]["index"] >= 85, judged
    assert sorted(set(judged["lynis"]["open"]) - explained(README.read_text())) == []


def test_openscap_judged_it_too(manifest: dict[str, Any]) -> None:
    opinion = manifest["hardening"]["openscap"]
    assert sum(opinion["results"].values()) == 391  # the profile's rules, in Debian 13's content
    assert len(opinion["open"]) == opinion["results"]["fail"]


def test_it_reboots_cleanly_three_times_and_all_titles_answer(here: Here, machine: str) -> None:
    for _ in range(3):
        assert here.rebooted(machine) == "running"
        assert here.script(machine, CUT_OFF) == ""
    assert over_ssm(here, machine, "id -un") == "root\n"
    steps = [
        step
        for step in load_project(REPOSITORY / "amibuild.toml").steps
        if step.kind is StepKind.SERVICE or step.name == "hardening"
    ]
    bundle = base64.encodebytes(build_bundle(steps)).decode()
    result = here.script(
        machine,
        f"base64 -d >/run/c.pyz <<'EOF'\n{bundle}EOF\n"
        "python3 -I -S /run/c.pyz --json /run/result >/dev/null || true; cat /run/result",
    )
    checks = json.loads(result)["checks"]
    assert [c for c in checks if c["outcome"] in ("failed", "error")] == []
    assert {c["step"] for c in checks if c["outcome"] == "passed"} == {step.name for step in steps}


def over_ssm(here: Here, machine: str, command: str) -> str:
    asked = {"DocumentName": "AWS-RunShellScript", "Parameters": {"commands": [command]}}
    sent = here.ssm.send_command(InstanceIds=[machine], **asked)["Command"]["CommandId"]
    here.ssm.get_waiter("command_executed").wait(CommandId=sent, InstanceId=machine)
    done = here.ssm.get_command_invocation(CommandId=sent, InstanceId=machine)
    return str(done["StandardOutputContent"])


def test_an_administrator_can_install_a_package(here: Here, machine: str) -> None:
    assert here.script(machine, f"set -e\n{PACKAGE}").split() == ["active", "running"]


def test_updates_come_by_themselves(here: Here, machine: str) -> None:
    *results, _, last = here.script(machine, f"set -e\n{UPDATES}").splitlines()
    assert [result for result in results if result] == ["success", "success"]
    assert "No packages found that can be upgraded unattended" in last


def test_its_clock_follows_amazons_time_server(here: Here, machine: str) -> None:
    synchronised, seconds, *said = here.script(machine, TIME).splitlines()
    assert synchronised == "yes", said
    assert int(seconds) >= 3600, said
