"""All ports of a machine, asked from outside: which answer at all, and how.

Raw, since 65,535 connections that nobody refuses would take minutes. Needs root.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

ALL = range(1, 65536)
OPEN, CLOSED, ANSWERED = "open", "closed", "answered"
# The machine is one cable away; what is slower than this does not come.
SILENCE_S = 2.0
SYN, RST, ACK = 0x02, 0x04, 0x10
UNREACHABLE, PORT = 3, 3
# SO_RCVBUFFORCE, which Python has no name for. Without it all but 250 waiting answers are lost.
RECEIVE_BUFFER_FORCED = 33
HEADER = struct.Struct("!HHIIBBHHH")


def tcp(address: str) -> dict[int, str]:
    """Port -> `open` where a handshake begins, `closed` where refused; not the silent ones."""
    mine, port = _own_end(address)
    found: dict[int, str] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        for number in ALL:
            raw.sendto(_syn(mine, address, port, number), (address, 0))
            if number % 64 == 0:
                found |= dict(_tcp_answers(raw, address, port, 0))
        found |= dict(_tcp_answers(raw, address, port, SILENCE_S))
    return found


def udp(address: str, payloads: Sequence[bytes]) -> dict[int, str]:
    """Port -> `answered`, or `closed` where that was said. A server may be silent to a stranger."""
    found: dict[int, str] = {}
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as told,
    ):
        asking.bind(("", 0))
        for payload in payloads:
            for number in ALL:
                # What a closed port made the kernel say is an error of the next call.
                with contextlib.suppress(ConnectionRefusedError):
                    asking.sendto(payload, (address, number))
                if number % 64 == 0:
                    found |= dict(_udp_answers(asking, told, address, 0))
        found |= dict(_udp_answers(asking, told, address, SILENCE_S))
    return found


def _own_end(address: str) -> tuple[str, int]:
    """The address that packets to there have, and a port of ours."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        mine: str = probe.getsockname()[0]
        return mine, probe.getsockname()[1]


def _syn(mine: str, address: str, port: int, to: int) -> bytes:
    empty = HEADER.pack(port, to, to, 0, 5 << 4, SYN, 64240, 0, 0)
    ends = socket.inet_aton(mine) + socket.inet_aton(address)
    pseudo = ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(empty))
    total = sum(struct.unpack(f"!{(len(pseudo) + len(empty)) // 2}H", pseudo + empty))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return HEADER.pack(port, to, to, 0, 5 << 4, SYN, 64240, ~total & 0xFFFF, 0)


def _tcp_answers(
    raw: socket.socket, address: str, port: int, patience_s: float
) -> Iterator[tuple[int, str]]:
    for packet, sender in _received([raw], patience_s):
        head = (packet[0] & 0xF) * 4
        source, destination, _, _, _, flags, *_ = HEADER.unpack_from(packet, head)
        if sender == address and destination == port and flags & (RST | ACK):
            yield source, CLOSED if flags & RST else OPEN


def _udp_answers(
    asking: socket.socket, told: socket.socket, address: str, patience_s: float
) -> Iterator[tuple[int, str]]:
    own = asking.getsockname()[1]
    for packet, sender, *port in _received([asking, told], patience_s):
        if sender != address:
            continue
        if port:
            yield port[0], ANSWERED
        elif packet[20:22] == bytes([UNREACHABLE, PORT]):
            inner = 28 + (packet[28] & 0xF) * 4
            source, destination = struct.unpack_from("!HH", packet, inner)
            if source == own:
                yield destination, CLOSED


def _received(sockets: list[socket.socket], patience_s: float) -> Iterator[tuple[Any, ...]]:
    """Packet and sender, of a datagram its port too, until it was silent for so long."""
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, RECEIVE_BUFFER_FORCED, 4 * 1024 * 1024)
    while ready := select.select(sockets, [], [], patience_s)[0]:
        for one in ready:
            with contextlib.suppress(ConnectionRefusedError):
                packet, (sender, port) = one.recvfrom(2048)
                datagram = one.type == socket.SOCK_DGRAM
                yield (packet, sender, port) if datagram else (packet, sender)
