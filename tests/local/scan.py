"""All ports of a machine, asked from outside: which answer at all, and how.

Raw, since 65,535 connections that nobody refuses would take minutes. Needs root.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
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
    with _hearing(socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        for number in ALL:
            raw.sendto(_syn(mine, address, port, number), (address, 0))
            if number % 1024 == 0:
                found |= dict(_tcp_answers(raw, address, port, 0))
        found |= dict(_tcp_answers(raw, address, port, SILENCE_S))
    return found


def udp(address: str, payloads: Sequence[bytes]) -> dict[int, str]:
    """Port -> `answered`, or `closed` where that was said. A server may be silent to a stranger."""
    found: dict[int, str] = {}
    with (
        _hearing(socket.SOCK_DGRAM, 0) as asking,
        _hearing(socket.SOCK_RAW, socket.IPPROTO_ICMP) as told,
    ):
        asking.bind(("", 0))
        for payload in payloads:
            for number in ALL:
                # What a closed port made the kernel say is an error of the next call.
                with contextlib.suppress(ConnectionRefusedError):
                    asking.sendto(payload, (address, number))
                if number % 1024 == 0:
                    found |= dict(_udp_answers(asking, told, address, 0))
        found |= dict(_udp_answers(asking, told, address, SILENCE_S))
    return found


def _hearing(kind: socket.SocketKind, protocol: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, RECEIVE_BUFFER_FORCED, 16 * 1024 * 1024)
    return made


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
    for packet, *_ in _received([raw], address, patience_s):
        head = (packet[0] & 0xF) * 4
        source, destination, _, _, _, flags, *_ = HEADER.unpack_from(packet, head)
        if destination == port and flags & (RST | ACK):
            yield source, CLOSED if flags & RST else OPEN


def _udp_answers(
    asking: socket.socket, told: socket.socket, address: str, patience_s: float
) -> Iterator[tuple[int, str]]:
    own = asking.getsockname()[1]
    for packet, *port in _received([asking, told], address, patience_s):
        if port:
            yield port[0], ANSWERED
        elif packet[20:22] == bytes([UNREACHABLE, PORT]):
            inner = 28 + (packet[28] & 0xF) * 4
            source, destination = struct.unpack_from("!HH", packet, inner)
            if source == own:
                yield destination, CLOSED


def _received(
    sockets: list[socket.socket], address: str, patience_s: float
) -> Iterator[tuple[Any, ...]]:
    """What the machine sent, of a datagram its port too, until it was silent for so long.

    A raw socket hears all of this host's connections, which is never silent.
    """
    end = time.monotonic() + patience_s
    while ready := select.select(sockets, [], [], max(0.0, end - time.monotonic()))[0]:
        for one in ready:
            with contextlib.suppress(ConnectionRefusedError):
                packet, (sender, port) = one.recvfrom(2048)
                if sender == address:
                    end = time.monotonic() + patience_s
                    yield (packet, port) if one.type == socket.SOCK_DGRAM else (packet,)
        if patience_s and time.monotonic() > end:
            return
