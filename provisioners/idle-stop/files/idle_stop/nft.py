"""The kernel's own count of UDP packets, by peer: a table of nftables, as text and read back.

Pure. UDP has no connections, so the table keeps a list of those whom a service answered. Connection
tracking would tell less (no packets, unless it is told to count them) and works only where a
firewall asks for it. The table lets everything pass. It comes after the firewall, so that what
that refuses is not counted.

    peers   whom a service sent something: a port scan that gets no answer is not in it
    said    packets to them
    heard   packets from them, after the first answer

Source: nft(8), "Sets" and "Set statement": `update` adds or refreshes an element, and one of a set
with a counter counts each time. Lookups count too (kernel 6.18), so `peers` has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TABLE = "amibuild_idle"
# Kept for longer than the time between two looks.
KEPT_S = 180
MOST_PEERS = 65536
# Of IP: the type of an address, and its fields in a packet.
FAMILIES = {"4": ("ipv4_addr", "ip"), "6": ("ipv6_addr", "ip6")}


@dataclass(frozen=True)
class Packets:
    """From and to one peer, since it was first answered."""

    address: str
    peer_port: int
    port: int
    heard: int
    said: int


@dataclass(frozen=True)
class Counted:
    """What the table holds. When it is `full`, others may be there whom it could not take."""

    ports: frozenset[int]
    packets: tuple[Packets, ...]
    full: bool


def table(ports: Iterable[int]) -> str:
    """For `nft -f -`: puts the table there, in one go, in place of one that was there before."""
    listed = ", ".join(str(port) for port in sorted(ports))
    lines = [
        f"table inet {TABLE}",
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
        f"    set ports {{ type inet_service; elements = {{ {listed} }}; }}",
    ]
    for family, (address, _) in FAMILIES.items():
        kind = f"type {address} . inet_service . inet_service; flags dynamic,timeout;"
        limits = f"timeout {KEPT_S}s; size {MOST_PEERS};"
        lines += [
            f"    set peers{family} {{ {kind} {limits} }}",
            f"    set said{family} {{ {kind} counter; {limits} }}",
            f"    set heard{family} {{ {kind} counter; {limits} }}",
        ]
    lines += ["    chain output {", "        type filter hook output priority 10; policy accept;"]
    for family, (_, ip) in FAMILIES.items():
        to = f"{ip} daddr . udp dport . udp sport"
        sent = '        oifname != "lo" udp sport @ports'
        lines += [
            f"{sent} update @peers{family} {{ {to} }}",
            f"{sent} update @said{family} {{ {to} }}",
        ]
    lines += ["    }", "    chain input {"]
    lines += ["        type filter hook input priority 10; policy accept;"]
    for family, (_, ip) in FAMILIES.items():
        origin = f"{ip} saddr . udp sport . udp dport"
        got = '        iifname != "lo" udp dport @ports'
        lines += [f"{got} {origin} @peers{family} update @heard{family} {{ {origin} }}"]
    lines += ["    }", "}"]
    return "\n".join(lines) + "\n"


def read_table(listed: Mapping[str, Any]) -> Counted:
    """From `nft --json list table`.

    Raises: KeyError, TypeError, ValueError on anything else.
    """
    sets = {entry["set"]["name"]: entry["set"] for entry in listed["nftables"] if "set" in entry}
    packets: list[Packets] = []
    full = False
    for family in FAMILIES:
        heard = _counts(sets[f"heard{family}"])
        said = _counts(sets[f"said{family}"])
        packets += [
            Packets(*peer, heard=heard.get(peer, 0), said=number) for peer, number in said.items()
        ]
        full = full or len(said) >= sets[f"said{family}"]["size"]
    return Counted(frozenset(sets["ports"].get("elem", [])), tuple(packets), full)


def _counts(entry: Mapping[str, Any]) -> dict[tuple[str, int, int], int]:
    """Packets by address, port of the peer, port of the service."""
    counts: dict[tuple[str, int, int], int] = {}
    for element in entry.get("elem", []):
        address, peer_port, port = element["elem"]["val"]["concat"]
        counts[str(address), int(peer_port), int(port)] = int(element["elem"]["counter"]["packets"])
    return counts
