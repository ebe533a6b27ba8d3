"""What the machine as a whole shows to the network. Each part's own checks are in test_PART.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testinfra.host import Host

Facts = dict[str, Any]

# What the firmware keeps under the name that UEFI gives it; four bytes of attributes come first.
SECURE_BOOT = Path("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")


def test_open_are_the_services_public_ports_the_recipes_and_no_others(
    host: Host, facts: Facts
) -> None:
    services = host.run("find /etc/amibuild/services -name '*.json' -exec cat {} +").stdout
    wanted = {p: {int(n) for n in facts["parameters"][f"open_{p}"]} for p in ("tcp", "udp")}
    if facts["parameters"]["ssh"]:
        wanted["tcp"].add(22)
    decoder, rest = json.JSONDecoder(), services.strip()
    while rest:
        service, end = decoder.raw_decode(rest)
        rest = rest[end:].strip()
        for port in service["ports"]:
            if port["public"]:
                wanted[port["protocol"]].add(port["port"])
    assert {p: opened(host, p) for p in ("tcp", "udp")} == wanted


def opened(host: Host, protocol: str) -> set[int]:
    listed = json.loads(host.check_output("nft --json list set inet amibuild %s_open", protocol))
    (found,) = [item["set"] for item in listed["nftables"] if "set" in item]
    return set(found.get("elem", []))


def test_whether_its_boot_was_secured_is_told(
    own_kernel: None, record_property: Callable[[str, object], None]
) -> None:
    """Told, not asked for: EC2 takes the firmware's keys where an image is registered."""
    if SECURE_BOOT.exists():
        state = {0: "off", 1: "on"}[SECURE_BOOT.read_bytes()[4]]
    else:
        assert not SECURE_BOOT.parent.exists() or not any(SECURE_BOOT.parent.iterdir())
        state = "no UEFI"
    record_property("secure_boot", state)
