"""What the machine as a whole shows to the network. Each part's own checks are in test_PART.py."""

import json
from typing import Any

from testinfra.host import Host

Facts = dict[str, Any]


def test_open_are_the_services_public_ports_the_recipes_and_no_others(
    host: Host, facts: Facts
) -> None:
    services = host.run("find /etc/amibuild/services -name '*.json' -exec cat {} +").stdout
    wanted = {p: {int(n) for n in facts["parameters"][f"open_{p}"]} for p in ("tcp", "udp")}
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
