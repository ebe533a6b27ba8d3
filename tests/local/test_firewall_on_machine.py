"""The firewall of the shipped recipe's image, seen from the host over the machine's own cable."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from amibuild.wait import Look, until
from tests.local import scan
from tests.local.clients import Here
from tests.local.scenario import Called

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]

BZFLAG, CLOSED = 5154, 47812
HEARER = ("systemd-run", "--quiet", "python3", "-m", "http.server", str(CLOSED))
# By IMDSv2, as services do that fetch secrets.
METADATA = """
token=$(curl -fsS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
    http://169.254.169.254/latest/api/token)
curl -fsS -o /dev/null -w '%{http_code}' -H "X-aws-ec2-metadata-token: $token" \
    http://169.254.169.254/latest/meta-data/instance-id
"""


# What minetest and mumble answer to: see their own checks.
GREETINGS = (bytes.fromhex("4f45740300000001"), struct.pack(">IQ", 0, 1))
OPENED = 47813
CONNECT = """
import socket, sys
address, *ports = sys.argv[1:]
for port in ports:
    try:
        socket.create_connection((address, int(port)), 2).close()
        print(port)
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def contract(baked: Called) -> dict[str, set[int]]:
    """Protocol -> the public ports of the image's services, by its manifest."""
    services = json.loads(Path(baked.json["manifest"]).read_text())["services"].values()
    ports = [port for service in services for port in service["ports"] if port["public"]]
    return {p: {n["port"] for n in ports if n["protocol"] == p} for p in ("tcp", "udp")}


@pytest.fixture(scope="module")
def machine(baked: Called, here: Here) -> Iterator[str]:
    instance = here.launch(baked.json["image"]["id"])
    yield instance
    here.ec2.terminate_instances(InstanceIds=[instance])


@pytest.fixture(scope="module")
def address(here: Here, machine: str) -> str:
    """Of its veth, once its services are up. A pending machine has no address of a real one."""
    here.ec2.get_waiter("instance_running").wait(InstanceIds=[machine])
    found = here.ec2.describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"][0]
    address: str = found["PrivateIpAddress"]

    def look() -> Look[str]:
        answer = asked(address, BZFLAG)
        return Look(answer, address if answer == "connected" else None)

    return until(look, what=f"{address}:{BZFLAG}", timeout_s=120)


def asked(address: str, port: int) -> str:
    try:
        with socket.create_connection((address, port), timeout=2):
            return "connected"
    except TimeoutError:
        return "silence"
    except ConnectionRefusedError:
        return "refusal"


def test_a_services_port_answers_and_one_that_nobody_opened_is_silent(
    here: Here, machine: str, address: str
) -> None:
    assert asked(address, BZFLAG) == "connected"
    assert asked(address, CLOSED) == "silence"
    here.shell(machine, *HEARER)
    until(lambda: heard(here, machine), what="a server where the firewall is closed", timeout_s=60)
    assert asked(address, CLOSED) == "silence"


def heard(here: Here, machine: str) -> Look[bool]:
    listed = here.shell(machine, "ss", "-Hltn", "sport", "=", f":{CLOSED}")
    return Look("not yet", True if listed.strip() else None)


def test_nobody_hears_at_the_port_of_ssh(here: Here, machine: str, address: str) -> None:
    assert not here.shell(machine, "ss", "-Hltn", "sport", "=", ":22").strip()
    assert asked(address, 22) == "silence"


def test_of_all_ports_only_the_services_answer(
    here: Here, machine: str, address: str, contract: dict[str, set[int]]
) -> None:
    """Seen from the other end of its cable; another machine of the endpoint sees the same."""
    assert scan.tcp(address) == dict.fromkeys(contract["tcp"], scan.OPEN)
    udp = scan.udp(address, GREETINGS)
    # bzflag's says nothing to a stranger.
    assert udp == dict.fromkeys(contract["udp"] - {BZFLAG}, scan.ANSWERED)


def test_a_port_that_somebody_opened_would_have_been_found(
    here: Here, machine: str, address: str, contract: dict[str, set[int]]
) -> None:
    for protocol in ("tcp", "udp"):
        change = f"element inet amibuild {protocol}_open {{ {OPENED} }}"
        here.shell(machine, "nft", f"add {change}")
        seen = scan.tcp(address) if protocol == "tcp" else scan.udp(address, GREETINGS[:1])
        here.shell(machine, "nft", f"delete {change}")
        assert seen[OPENED] == scan.CLOSED
        assert set(seen) - {OPENED} <= contract[protocol]


def test_another_machine_gets_no_further(
    here: Here, machine: str, address: str, contract: dict[str, set[int]]
) -> None:
    """Over its own way out and this host, and from the address of that."""
    other = here.launch()
    try:
        here.ec2.get_waiter("instance_running").wait(InstanceIds=[other])
        here.shell(machine, *HEARER)  # where it runs already, this one ends
        until(lambda: heard(here, machine), what="a server that is closed", timeout_s=60)
        listed = here.shell(machine, "ss", "-Hltn").splitlines()
        listening = {int(line.split()[3].rpartition(":")[2]) for line in listed}
        assert CLOSED in listening
        seen = here.shell(other, "python3", "-c", CONNECT, address, *map(str, sorted(listening)))
        assert {int(port) for port in seen.split()} == contract["tcp"]
    finally:
        here.ec2.terminate_instances(InstanceIds=[other])


def test_commands_and_metadata_go_on_through_it(here: Here, machine: str, address: str) -> None:
    assert "policy drop" in here.shell(machine, "nft", "list", "table", "inet", "amibuild")
    assert here.shell(machine, "sh", "-c", METADATA) == "200"
